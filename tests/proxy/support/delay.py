#!/usr/bin/env python3
"""A link that is slow and long, in a network of the caller's own: python3 delay.py ADDRESS PEER MBIT MS

Makes a TUN device with ADDRESS. What is sent to PEER comes back, later, as if PEER had sent it to ADDRESS: so
whoever connects to a port of PEER reaches that port of ADDRESS over a path whose round trip takes MS, and each
direction of a connection carries MBIT a second. Says "ready" once it is there, and ends with its input.
"""

import collections
import fcntl
import heapq
import os
import select
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 9000
# What a direction queues, in seconds at its rate, before it drops.
QUEUE = 0.2

address, peer = sys.argv[1:3]
rate, delay = float(sys.argv[3]) * 125_000, float(sys.argv[4]) / 2000
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"long0", IFF_TUN | IFF_NO_PI))
for command in (
    f"ip address add {address} peer {peer} dev long0",
    f"ip link set long0 mtu {MTU} txqueuelen 10000 up",
):
    subprocess.run(command.split(), check=True)
print("ready", flush=True)

free = collections.defaultdict(float)  # when each direction has sent all that it was given
waiting = []  # a heap, by the time of arrival
count = 0
while True:
    now = time.monotonic()
    while waiting and waiting[0][0] <= now:
        try:
            os.write(tun, heapq.heappop(waiting)[2])
        except OSError:
            pass  # it is lost, as on any link
    timeout = max(0.0, waiting[0][0] - now) if waiting else None
    ready, _, _ = select.select([tun, 0], [], [], timeout)
    if 0 in ready and not os.read(0, 1):
        sys.exit()
    if tun not in ready:
        continue
    now = time.monotonic()
    for _ in range(64):
        try:
            packet = os.read(tun, MTU)
        except BlockingIOError:
            break
        if packet[0] >> 4 != 4:
            continue
        header = (packet[0] & 15) * 4
        way = packet[header : header + 4]
        sent = max(free[way], now) + len(packet) / rate
        if sent - now > QUEUE:
            continue
        free[way] = sent
        # The sums over both addresses are the same the other way round.
        count += 1  # so that equal times keep their order
        turned = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
        heapq.heappush(waiting, (sent + delay, count, turned))
