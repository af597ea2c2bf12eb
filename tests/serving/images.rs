//! Models of images: files over the wire.

use std::io::Cursor;

use ::image::{ImageFormat, Rgb, RgbImage};
use embark_sidecar::pb::client::{
    EmbedRequest, InputKind, InvalidateRequest, Item, ItemKeys, ItemResult, Source,
    invalidate_request::Scope, item::Input,
};
use embark_tests::{
    Manifest, Sidecar, refusal,
    sidecar::{Options, items, sources},
};
use tonic::Code;

/// Pixels across and down, as the model has them.
const SIDE: u32 = 8;
/// How far a mean may be from the colour, whose format may be lossy.
const TOLERANCE: f32 = 0.03;

#[tokio::test(flavor = "multi_thread")]
async fn images_of_every_format_and_size_give_their_colour() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = serve(folder.path()).await;
    let model = sidecar.model("colours").await.unwrap();
    assert_eq!((model.input_kind(), model.dimensions), (InputKind::Image, 3));
    assert_eq!(model.limits.unwrap().max_item_bytes, 10 << 20);
    let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif];
    let colour = [204, 102, 51];
    let sizes = [(SIDE, SIDE), (1, 1), (640, 480), (3, 500)];
    let files = formats.iter().flat_map(|format| sizes.map(|size| file(*format, size, colour)));
    let results = embed(&sidecar, files.collect()).await;
    assert_eq!(sources(&results), [Source::Computed; 16]);
    for result in &results {
        assert_eq!((result.tokens, result.truncated), (0, false));
        for (value, level) in result.vector.iter().zip(colour) {
            let expected = f32::from(level) / 255.0;
            assert!((value - expected).abs() < TOLERANCE, "{:?}", result.vector);
        }
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_found_again_by_all_bytes_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::of_colours("colours", folder.path(), SIDE)
        .with("/spec/cache/allowInvalidation", true);
    let options = Options::new(folder.path(), &manifest);
    let sidecar = Sidecar::start(&options).await;
    let png = file(ImageFormat::Png, (9, 9), [9; 3]);
    // The same pixels, and a byte behind them.
    let other = [&png[..], &[0]].concat();
    let first = embed(&sidecar, vec![png.clone(), other.clone(), png.clone()]).await;
    assert_eq!(sources(&first), [Source::Computed, Source::Computed, Source::Coalesced]);
    assert_eq!(first[0].vector, first[1].vector);
    assert_eq!(sources(&embed(&sidecar, vec![png.clone()]).await), [Source::HitMemory]);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    let kept = embed(&sidecar, vec![png.clone(), other.clone()]).await;
    assert_eq!(sources(&kept), [Source::HitDisk; 2]);
    let keys = ItemKeys { items: vec![item(png.clone())] };
    let scope = Some(Scope::Items(keys));
    let gone = InvalidateRequest { model: "colours".to_owned(), scope, ..Default::default() };
    sidecar.cache().await.invalidate(gone).await.unwrap();
    let anew = embed(&sidecar, vec![png, other]).await;
    assert_eq!(sources(&anew), [Source::Computed, Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_refused_by_its_place_and_its_company_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::of_colours("colours", folder.path(), SIDE)
        .with("/spec/input/image/sizeLimit", "4Ki")
        .with("/spec/input/image/maxPixels", 10_000);
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let good = file(ImageFormat::Png, (9, 9), [9; 3]);
    let jpeg = file(ImageFormat::Jpeg, (64, 64), [9; 3]);
    let wrong = [
        (vec![], "0 bytes", "1 to 4096 bytes"),
        (vec![0; 4097], "4097 bytes", "1 to 4096 bytes"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(), "41 bytes", "a PNG"),
        (jpeg[..jpeg.len() - 2].to_vec(), "JPEG", "a PNG"),
        (file(ImageFormat::Png, (101, 100), [9; 3]), "101 × 100 pixels", "at most 10000 pixels"),
    ];
    for (bytes, value, allowed) in &wrong {
        let refused = sidecar.call(request(vec![bytes.clone()])).await.unwrap_err();
        let (code, reason) = (Code::InvalidArgument, "IMAGE_UNDECODABLE");
        let metadata = refusal::of_field(&refused, code, reason, "items[0].image");
        assert!(metadata["value"].contains(value), "{metadata:?}");
        assert!(metadata["allowed"].contains(allowed), "{metadata:?}");
    }
    let mixed = wrong.iter().map(|(bytes, ..)| bytes.clone()).chain([good]).collect();
    let mut results = embed(&sidecar, mixed).await;
    let served = results.pop().unwrap();
    assert!(served.error.is_none() && served.vector.len() == 3, "{served:?}");
    for (at, result) in results.iter().enumerate() {
        let error = result.error.as_ref().unwrap();
        let code = Code::InvalidArgument as i32;
        assert_eq!((error.code, error.reason.as_str()), (code, "IMAGE_UNDECODABLE"));
        let field = format!("items[{at}].image: ");
        assert!(error.message.starts_with(&field), "{}", error.message);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_no_items_of_a_model_of_images_and_urls_are_off_unless_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = serve(folder.path()).await;
    let bad = Code::InvalidArgument;
    let text = EmbedRequest { items: items(&["a text"]), ..EmbedRequest::default() };
    let refused = sidecar.call(text).await.unwrap_err();
    let metadata = refusal::of_field(&refused, bad, "ITEM_KIND", "items[0].text");
    assert_eq!(metadata["allowed"], "image");
    let url = Item { input: Some(Input::ImageUrl("http://example.com/a.png".to_owned())) };
    let url = EmbedRequest { items: vec![url], ..EmbedRequest::default() };
    let refused = sidecar.call(url).await.unwrap_err();
    let metadata = refusal::of_field(
        &refused,
        Code::PermissionDenied,
        "URL_NOT_ALLOWED",
        "items[0].image_url",
    );
    assert!(metadata["allowed"].contains("spec.input.image.urls"), "{metadata:?}");
    sidecar.stop().await;
}

async fn serve(folder: &std::path::Path) -> Sidecar {
    Sidecar::serve(folder, &Manifest::of_colours("colours", folder, SIDE)).await
}

async fn embed(sidecar: &Sidecar, images: Vec<Vec<u8>>) -> Vec<ItemResult> {
    sidecar.call(request(images)).await.unwrap().results
}

fn request(images: Vec<Vec<u8>>) -> EmbedRequest {
    EmbedRequest { items: images.into_iter().map(item).collect(), ..EmbedRequest::default() }
}

fn item(image: Vec<u8>) -> Item {
    Item { input: Some(Input::Image(image)) }
}

/// The file of an image of one colour.
fn file(format: ImageFormat, (width, height): (u32, u32), colour: [u8; 3]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(width, height, Rgb(colour));
    image.write_to(&mut file, format).unwrap();
    file.into_inner()
}
