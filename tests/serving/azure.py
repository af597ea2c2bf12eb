"""azure.py ENDPOINT ACCOUNT KEY CONTAINER BLOB FILE: makes a container and puts a file in it, each signed by the account."""

import base64
import hashlib
import hmac
import sys
import urllib.parse
import urllib.request
from email.utils import formatdate

endpoint, account, key, container, blob, file = sys.argv[1:]


def put(path, query, headers, body):
    headers = {**headers, "x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    length = str(len(body)) if body else ""
    kind = "application/octet-stream"
    named = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    resource = f"/{account}{urllib.parse.urlparse(endpoint).path}/{path}"
    resource += "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
    text = "\n".join(["PUT", "", "", length, "", kind, "", "", "", "", "", "", named + resource])
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(digest).decode()}"
    headers["Content-Type"] = kind
    url = f"{endpoint}/{path}" + ("?" + urllib.parse.urlencode(query) if query else "")
    request = urllib.request.Request(url, data=body, headers=headers, method="PUT")
    # No proxy of this machine's.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        assert response.status == 201, response.status


put(container, {"restype": "container"}, {}, b"")
with open(file, "rb") as opened:
    put(f"{container}/{blob}", {}, {"x-ms-blob-type": "BlockBlob"}, opened.read())
