"""Every example runs, at small size."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.criteo_rows import write_criteo
from lit_gnncompress import BitPlan

ROOT = Path(__file__).parent.parent


def run(*args, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("model", ["sage", "gat", "custom"])
def test_your_own_module(model, tmp_path):
    script = str(ROOT / "examples/your_own_module.py")
    done = run(script, "--model", model, "--epochs", "8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"accuracy at 4 bits: (\S+)", done.stdout)[1])
    assert accuracy > 0.5
    assert "8.0×" in done.stdout  # the ledger: 4 bits instead of 32


def test_your_own_module_imports_only_the_callbacks():
    lines = (ROOT / "examples/your_own_module.py").read_text().splitlines()
    ours = [line for line in lines if line.startswith("from lit_gnncompress")]
    assert ours == [
        "from lit_gnncompress import BitPlan",
        "from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize",
    ]


def test_cora(tmp_path):
    if "GNNCOMPRESS_DATA" not in os.environ:
        pytest.skip("GNNCOMPRESS_DATA is not set: Cora is not at hand")
    config = str(ROOT / "examples/cora.yaml")
    small = ("--trainer.max_epochs=3", f"--data.init_args.processed_dir={tmp_path}")
    done = run("-m", "lit_gnncompress", "fit", "--config", config, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Bytes of features and attention" in done.stdout
    assert list(tmp_path.glob("runs/cora/**/*.ckpt"))


def test_bit_search(tmp_path):
    config = str(ROOT / "examples/bit_search.yaml")
    small = ("--trainer.max_epochs=3", "--trainer.callbacks.trials=4")
    done = run("-m", "lit_gnncompress", "fit", "--config", config, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Best of 4 plans" in done.stdout or "none of 4 plans" in done.stdout
    assert (tmp_path / "runs/bit_search/search.png").exists()


def test_plans_of_the_readme():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    plans = [BitPlan.from_dict(yaml.safe_load(block)["plan"]) for block in blocks]
    assert [plan.num_buckets for plan in plans] == [3]


def test_tt_node_embedding(tmp_path):
    config = ("--config", str(ROOT / "examples/tt_node_embedding.yaml"))
    main = ("-m", "lit_gnncompress")
    done = run(*main, "fit", *config, "--trainer.max_epochs=30", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Embedding tables as tensor trains" in done.stdout
    (checkpoint,) = tmp_path.glob("runs/tt_node_embedding/**/*.ckpt")
    done = run(*main, "test", *config, f"--ckpt_path={checkpoint}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test_acc\D*(0\.\d+)", done.stdout)[1]) > 0.7


def test_tt_recommender(tmp_path):
    config = ("--config", str(ROOT / "examples/tt_recommender.yaml"))
    done = run("-m", "lit_gnncompress", "fit", *config, "--trainer.max_epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "19.7×" in done.stdout


def test_dlrm_criteo(tmp_path):
    day, config = tmp_path / "day_0", ("--config", str(ROOT / "examples/dlrm_criteo.yaml"))
    write_criteo(day, 3000, (900, 400, 300, 200, 12, *([5] * 21)))
    of_file = (f"--data.init_args.path={day}", f"--data.init_args.processed_dir={tmp_path}")
    main = ("-m", "lit_gnncompress")
    done = run(*main, "fit", *config, *of_file, "--trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("embeddings.") == 5
    assert "is left dense: its cores would have" in " ".join(done.stdout.split())
    (checkpoint,) = tmp_path.glob("runs/dlrm_criteo/**/*.ckpt")
    done = run(*main, "test", *config, *of_file, f"--ckpt_path={checkpoint}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"test_auroc\D*0\.\d+", done.stdout)


def test_dlrm_criteo_of_published_rows(tmp_path):
    if "GNNCOMPRESS_DATA" not in os.environ:
        pytest.skip("GNNCOMPRESS_DATA is not set: Criteo10k is not at hand")
    config = str(ROOT / "examples/dlrm_criteo.yaml")
    real = (
        "--data.init_args.name=Criteo10k",
        f"--data.init_args.processed_dir={tmp_path}",
        "--trainer.callbacks.order=cooccurrence",
        "--trainer.max_epochs=1",
    )
    done = run("-m", "lit_gnncompress", "fit", "--config", config, *real, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cooccurrence") == 5
