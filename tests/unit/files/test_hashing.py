import torch

from adaptkit.files.hashing import hash_tensors


def tensors(**changes):
    generator = torch.Generator().manual_seed(0)
    values = {"a": torch.randn(300, 70, generator=generator), "b": torch.arange(6), "empty": torch.empty(0, 3)}
    return {**values, **changes}


def test_the_hash_depends_on_every_bit_name_shape_and_dtype():
    reference = tensors()
    hashes = [hash_tensors(reference.items())]
    flipped = reference["a"].clone()
    flipped.view(torch.int32)[299, 69] ^= 1  # the lowest bit of the last value
    hashes.append(hash_tensors(tensors(a=flipped).items()))
    hashes.append(hash_tensors(tensors(a=reference["a"].view(torch.int32)).items()))
    hashes.append(hash_tensors(tensors(a=reference["a"].reshape(70, 300)).items()))
    hashes.append(hash_tensors({("c" if name == "b" else name): t for name, t in reference.items()}.items()))
    hashes.append(hash_tensors(tensors(zero=torch.tensor(-0.0)).items()))
    hashes.append(hash_tensors(tensors(zero=torch.tensor(0.0)).items()))
    assert len(set(hashes)) == len(hashes)


def test_the_hash_ignores_order_and_layout():
    reference = hash_tensors(tensors().items())
    assert hash_tensors(reversed(tensors().items())) == reference
    strided = torch.empty(70, 300).copy_(tensors()["a"].T).T
    assert not strided.is_contiguous()
    assert hash_tensors(tensors(a=strided).items()) == reference
