"""The loss computed in parts is the loss."""

import pytest
import torch

from adaptkit.errors import ModelError
from adaptkit.model import loss as loss_module
from tests.unit.model.conftest import batch_of, build, loss_and_gradients
from tests.unit.model.test_packed_rows import check_equal


def gradients_by_mode(model, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 700)  # a few positions of the tiny vocabulary
    batch = batch_of(model)
    model.set_trainable(list(model.trainable_parts()))
    model.train()
    results = {}
    for mode in ("plain", "chunked"):
        with model.prepared_for_training(loss=mode):
            results[mode] = loss_and_gradients(model, {**batch.inputs, "labels": batch.labels})
    return results


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "cohere"])  # the last scales its logits
def test_parts_give_the_loss_and_gradients_of_the_whole(family, monkeypatch):
    results = gradients_by_mode(build(family)[1], monkeypatch)
    (expected, gradients), (found, found_gradients) = results["plain"], results["chunked"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-3, atol=2e-6, msg=name)


def test_many_logits_are_computed_in_parts_by_itself(monkeypatch):
    _, model = build("llama")
    batch = batch_of(model)
    model.train()
    with model.prepared_for_training():
        assert model(**batch.inputs, labels=batch.labels).logits is not None
        monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 100)
        assert model(**batch.inputs, labels=batch.labels).logits is None
    assert model(**batch.inputs, labels=batch.labels).logits is not None


def test_a_family_that_changes_logits_keeps_them_whole(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 1)
    _, model = build("gemma2")  # caps its logits
    batch = batch_of(model)
    model.train()
    with model.prepared_for_training():
        assert model(**batch.inputs, labels=batch.labels).logits is not None
    with (
        pytest.raises(ModelError, match="loss: chunked"),
        model.prepared_for_training(loss="chunked"),
    ):
        pass


def test_a_cap_is_seen_where_words_have_no_embedding():
    _, model = build("gemma2")
    with torch.no_grad():
        model.get_input_embeddings().weight[:3] = 0  # as that of a padding token is
    with pytest.raises(ModelError, match="loss: chunked"), model.prepared_for_training(loss="chunked"):
        pass


def test_a_kernel_that_is_asked_for_and_missing_is_an_error():
    _, model = build("llama")
    batch = batch_of(model)
    model.train()
    with model.prepared_for_training(loss="liger"), pytest.raises(ModelError, match="loss: liger"):
        model(**batch.inputs, labels=batch.labels)


def test_packed_rows_and_parts_go_together(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 700)
    check_equal(build("llama")[1], loss="chunked")
