"""What a worker of the Kinesis Client Library runs for each of its shards: writes down every record that it is given, and checkpoints.

The file named by LEDGER gets a line for each: the machine's monotonic time, what it is, the shard, and for a record its partition key,
sequence number and data. Lines are written before the checkpoint, so that a killed worker has seen whatever it checkpointed."""

import base64
import os
import sys
import time

from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor


class Processor(processor.RecordProcessorBase):
    def __init__(self):
        self.ledger = open(f"{os.environ['LEDGER']}.{os.getpid()}", "a", encoding="utf-8")

    def note(self, *words):
        self.ledger.write(" ".join(map(str, (time.monotonic_ns(), *words))) + "\n")
        self.ledger.flush()

    def initialize(self, given):
        self.shard = given.shard_id
        self.note("begin", self.shard, given.sequence_number)

    def process_records(self, given):
        for record in given.records:
            data = record.binary_data if hasattr(record, "binary_data") else base64.b64decode(record.data)
            self.note("record", self.shard, record.partition_key, record.sequence_number, data.decode())
        if given.records:
            self.checkpoint(given.checkpointer)

    def checkpoint(self, checkpointer):
        try:
            checkpointer.checkpoint()
        except kcl.CheckpointError as error:
            self.note("no-checkpoint", self.shard, error)

    def lease_lost(self, _):
        self.note("lost", self.shard)

    def shard_ended(self, given):
        self.note("end", self.shard)
        given.checkpointer.checkpoint()

    def shutdown_requested(self, given):
        self.note("shutdown", self.shard)
        self.checkpoint(given.checkpointer)


if __name__ == "__main__":
    sys.exit(kcl.KCLProcess(Processor()).run())
