# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What two processes agree on."""

import datetime
import time
from types import SimpleNamespace

import torch

from training.engine.coordination import main_processes_first


def prepare_data(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=2)
    )
    with main_processes_first(SimpleNamespace(num_processes=2, is_local_main_process=rank == 0)):
        if rank == 0:
            time.sleep(4)
            (folder / "prepared").touch()
        assert (folder / "prepared").exists()
    torch.distributed.destroy_process_group()


def test_data_may_take_longer_to_prepare_than_processes_wait_elsewhere(tmp_path):
    torch.multiprocessing.start_processes(prepare_data, (tmp_path,), nprocs=2, start_method="forkserver")
