"""import, export and predict through the command line: what they refuse, and a pickled model that becomes a folder."""

from __future__ import annotations

from configs.errors import Exit
from tests.cli_runs import launcher
from tests.support import pickles, tiny


def test_import_through_the_command_line(tmp_path):
    folder = tmp_path / "old"
    tensors = tiny.random_tensors(tiny.hf_shapes())
    tiny.write_bert(folder)
    (folder / "model.safetensors").unlink()
    pickles.write_torch(folder / "pytorch_model.bin", tensors)
    refused = launcher("import", str(folder), "--to", str(tmp_path / "new"), runs_dir=tmp_path)
    assert refused.returncode == Exit.USAGE
    assert "A pickle is a program" in refused.stderr
    done = launcher("import", "old", "--to", "new", "--i-trust-this-file", runs_dir=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "model.safetensors").is_file()
    pickles.write_zip(folder / "pytorch_model.bin", b"cos\nsystem\n" + pickles.marker(tmp_path / "hacked") + b"R", {})
    evil = launcher("import", "old", "--to", "evil", "--i-trust-this-file", runs_dir=tmp_path)
    assert evil.returncode == Exit.DATA
    assert "refused: it asks for os.system" in evil.stderr
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "evil").exists()


def test_mistakes_with_models_and_texts(tmp_path):
    tiny.write_bert(tmp_path / "my-bert")
    cases = {
        ("predict", "./nowhere", "--text", "x"): "./nowhere: no folder of a model",
        ("predict", "tiny", "--text-pair", "x"): "give exactly one of --text TEXT, a file, or -",
        ("predict", "tiny", "a.txt", "--text-pair", "x"): "--text-pair: belongs to --text",
        ("predict", "tiny", "nothing.txt"): "nothing.txt: no such file",
        ("predict", "tiny", "."): ".: a folder, not a file of texts",
        ("predict", "my-bert", "--text", "x", "--runs-dir", "other"): "did you mean ./my-bert?",
        ("export", "tiny"): "Missing option",
        ("export", "tiny", "--format", "onnx"): "'onnx' is not one of 'hf', 'paddlenlp', 'inference'",
        ("import", "nothing", "--to", "new"): "nothing does not exist",
    }
    for arguments, said in cases.items():
        done = launcher(*arguments, runs_dir=tmp_path)
        assert (done.returncode, said in done.stderr) == (Exit.USAGE, True), (arguments, done.stderr)
