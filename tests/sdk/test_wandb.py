"""The SDK as `wandb.sandbox`, with a W&B API key."""

import warnings

from conftest import SMALL, apply, kubectl

# hack/install.sh puts its hash into the gateway's Secret.
KEY = "0123456789abcdef0123456789abcdef01234567"


def test_wandb_sandbox(tag, monkeypatch):
    monkeypatch.delenv("CWSANDBOX_API_KEY")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ENTITY_NAME", "team")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wandb.sandbox import Sandbox, Secret
    # The default store, for secrets without a store.
    metadata = {"name": "wandb-team-secrets", "labels": {"sandbox-operator.dev/secret-store": "true"}}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"HF_TOKEN": "hf-1", "K": "k-1"}})
    secrets = [Secret(name="HF_TOKEN"), Secret(name="K", env_var="OPENAI_API_KEY")]
    with Sandbox.run(tags=[tag], secrets=secrets, resources=SMALL) as sandbox:
        assert sandbox.exec(["sh", "-c", "echo $HF_TOKEN $OPENAI_API_KEY"]).result().stdout == "hf-1 k-1\n"
        lifetime = kubectl("get", "sbx", sandbox.sandbox_id, "-o", "jsonpath={.spec.maxLifetimeSeconds}")
        assert lifetime == str(12 * 3600)
    monkeypatch.undo()
