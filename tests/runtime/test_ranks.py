"""Processes of one run: alone, and three of them over Gloo."""

import os
import socket

import torch
import torch.multiprocessing as mp

from facerecon_torch.runtime.ranks import SINGLE, Ranks, joined_ranks


def _speak(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "3"}
    torch.set_num_threads(1)
    with joined_ranks(torch.device("cpu")) as ranks:
        generator = torch.Generator().manual_seed(rank)
        own = torch.rand(4, 4, generator=generator)
        said = {
            "who": (ranks.rank, ranks.world, ranks.is_first),
            "own": own,
            "sum": ranks.add_(own.clone()),
            "rows": ranks.gather(torch.full((rank, 2), float(rank))),
            "numbers": ranks.gather(torch.full((3 - rank,), rank)),
            "shared": ranks.share(own),
            "object": ranks.share({"rho": 0.1 * rank, "kept": rank == 0}),
        }
    torch.save(said, f"{folder}/{rank}.pt")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_three_processes_agree(tmp_path):
    mp.start_processes(_speak, (_free_port(), str(tmp_path)), nprocs=3, start_method="spawn")
    said = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3)]
    assert [each["who"] for each in said] == [(0, 3, True), (1, 3, False), (2, 3, False)]
    total = said[0]["own"] + said[1]["own"] + said[2]["own"]
    for each in said:
        assert torch.equal(each["sum"], said[0]["sum"])
        torch.testing.assert_close(each["sum"], total)
        assert each["rows"].tolist() == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
        assert each["numbers"].tolist() == [0, 0, 0, 1, 1, 2]
        assert torch.equal(each["shared"], said[0]["own"])
        assert each["object"] == {"rho": 0.0, "kept": True}


def test_alone_nothing_changes():
    rows = torch.arange(6.0).reshape(3, 2)
    assert Ranks() == SINGLE
    assert SINGLE.add_(rows) is rows
    assert SINGLE.gather(rows) is rows
    assert SINGLE.share(rows) is rows
    with joined_ranks(torch.device("cpu")) as ranks:
        assert ranks is SINGLE
