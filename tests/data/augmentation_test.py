"""Crops and flips against tf.image's resize of the same boxes, and their distribution."""

import numpy as np
import pytest
import tensorflow as tf

from iterand_tf.data import augmentation

SEED = tf.constant([3, 4], tf.int64)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)


def test_crop_flip_resizes_the_drawn_boxes_of_the_padded_images():
    crops = augmentation.crop_flip(tf.constant(IMAGES), SEED).numpy()
    box_seed, flip_seed = tf.random.split(SEED, 2)
    boxes = augmentation.random_boxes(16, 40, 40, box_seed).numpy().astype(int)
    flips = tf.random.stateless_uniform((16,), flip_seed).numpy() < 0.5
    padded = np.pad(IMAGES, [(0, 0), (4, 4), (4, 4), (0, 0)])
    for crop, image, (top, left, height, width), flip in zip(crops, padded, boxes, flips, strict=True):
        expected = tf.image.resize(image[top : top + height, left : left + width], (32, 32)).numpy()
        expected = expected[:, ::-1] if flip else expected
        # tf.image clamps at the border of the box, the batched crop blends with the pixel outside of it.
        np.testing.assert_allclose(crop[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.01)
    assert 0 < flips.sum() < 16


def test_boxes_lie_inside_and_have_the_papers_areas_and_ratios():
    top, left, height, width = augmentation.random_boxes(20_000, 40, 60, SEED).numpy().T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 40).all()
    assert (left + width <= 60).all()
    area = height * width / (40 * 60)
    assert 0.07 < area.min() < 0.1
    assert area.max() <= 1
    whole = (height == 40) & (width == 60)
    ratio = (width / height)[~whole]
    assert 0.7 < ratio.min() < ratio.max() < 1.42
    # Wide boxes fit a wide image a little more often.
    assert abs(np.log(ratio).mean()) < 0.05


def test_draws_are_functions_of_the_seed():
    one, again, other = (augmentation.crop_flip(tf.constant(IMAGES), tf.constant([3, n], tf.int64)) for n in (4, 4, 5))
    np.testing.assert_array_equal(one, again)
    assert (one.numpy() != other.numpy()).any()


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
def test_centre_of_an_encoded_image(encode):
    image = np.full((512, 1024, 3), 200, np.uint8)
    # This is the centre, 224/256 of the shorter side.
    image[32:480, 288:736] = 50
    centre = augmentation.centre_of_encoded(encode(image), 224)
    assert centre.shape == (224, 224, 3)
    np.testing.assert_allclose(centre[2:-2, 2:-2], 50, atol=6)
    assert abs(float(centre.numpy().mean()) - 50) < 2


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
def test_random_crop_of_an_encoded_image(encode):
    encoded = encode(np.full((50, 80, 3), 120, np.uint8))
    crop = augmentation.random_crop_of_encoded(encoded, 32, SEED)
    assert (crop.shape, crop.dtype) == ((32, 32, 3), tf.uint8)
    np.testing.assert_allclose(crop.numpy().astype(int), 120, atol=2)


def test_random_crops_of_an_encoded_image_are_rounded_and_flipped_half_of_the_time():
    # The values grow from left to right.
    columns = np.linspace(0, 255, 40).astype(np.uint8)
    encoded = tf.io.encode_png(np.broadcast_to(columns[None, :, None], (30, 40, 3)))
    rising = 0
    for number in range(100):
        seed = tf.constant([7, number], tf.int64)
        crop = augmentation.random_crop_of_encoded(encoded, 16, seed).numpy().astype(int)
        steps = np.diff(crop[:, :, 0], axis=1)
        assert (steps >= 0).all() or (steps <= 0).all()
        rising += steps.sum() > 0
        uniform = tf.random.stateless_uniform((1, 23), seed)
        box = augmentation._boxes(uniform[:, :10], uniform[:, 10:20], uniform[:, 20:22], 30, 40)[0].numpy().astype(int)
        exact = tf.image.resize(columns[None, box[1] : box[1] + box[3], None], (1, 16))[0, :, 0].numpy()
        expected = np.floor(exact + 0.5).astype(int)
        np.testing.assert_array_equal(crop[0, :, 0], expected if steps.sum() > 0 else expected[::-1])
    assert 35 <= rising <= 65


@pytest.mark.parametrize("name", ["randaugment", "mixup", "cutmix"])
def test_keras_cv_policies_run_in_a_pipeline(name):
    labels = np.eye(4, dtype=np.float32)[np.arange(16) % 4]
    batches = tf.data.Dataset.from_tensors((IMAGES.astype(np.float32), labels)).map(augmentation.policy(name, seed=1))
    images, mixed = next(iter(batches))
    assert images.shape == IMAGES.shape
    assert (images.numpy() != IMAGES).any()
    assert 0 <= images.numpy().min() < images.numpy().max() <= 255
    np.testing.assert_allclose(mixed.numpy().sum(1), 1, rtol=1e-5)
    assert (mixed.numpy() != labels).any() == (name != "randaugment")
