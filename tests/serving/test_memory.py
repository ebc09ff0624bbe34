import ctypes

from m6rec.serving import memory


def test_glibc_listens_and_other_libraries_are_left_alone(monkeypatch):
    listens = hasattr(ctypes.CDLL(None), "mallopt")
    assert memory.keep_freed_memory() == listens
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
