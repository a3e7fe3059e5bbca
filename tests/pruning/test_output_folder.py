import pytest

from schubert_hf.run.output import OutputFolderError, check_output_folder, result_files


def test_files_move_in_together(tmp_path):
    output = tmp_path / "new" / "result"
    check_output_folder(output)
    assert not (tmp_path / "new").exists()  # a run that fails early leaves nothing
    output.mkdir(parents=True)
    (output / "notes.txt").write_text("mine")
    with result_files(output) as folder:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text("weights")
        assert not (output / "config.json").exists()
    assert sorted(path.name for path in output.iterdir()) == ["config.json", "model.safetensors", "notes.txt"]


def test_nothing_half_written(tmp_path):
    def write_and_stop():
        with result_files(tmp_path) as folder:
            (folder / "config.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert list(tmp_path.iterdir()) == []
    check_output_folder(tmp_path)


def test_a_full_disk_is_one_error(tmp_path):
    with pytest.raises(OutputFolderError, match=r"cannot be written to .*: No space left"), result_files(tmp_path):
        raise OSError("No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_no_model(tmp_path):
    (tmp_path / ".finished").mkdir()
    (tmp_path / ".finished" / "config.json").write_text("torn")
    (tmp_path / "model.safetensors").write_text("torn")
    check_output_folder(tmp_path)
    with result_files(tmp_path) as folder:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text("whole")
    assert (tmp_path / "model.safetensors").read_text() == "whole"
    assert (tmp_path / "config.json").read_text() == "{}"
    assert not (tmp_path / ".finished").exists()


def test_a_model_is_never_written_over(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OutputFolderError, match=r"already holds a model\. Give another output folder"):
        check_output_folder(tmp_path)


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_file_is_no_folder(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match=r"cannot be written: .*Give another output folder"):
        check_output_folder(tmp_path / "file" / inside)
