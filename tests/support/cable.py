# SPDX-License-Identifier: Apache-2.0
"""A network cable between two network namespaces that holds some frames back and can be cut:
    cable.py NAMESPACE NAMESPACE DEVICE SHARE SECONDS SEED
It makes the Ethernet device DEVICE (a TAP) in each, says `ready`, and hands every frame on to the other one; a SHARE of them, drawn at
random, SECONDS later, so that younger ones overtake them. After the line `cut` on stdin nothing passes, as if a digger had been
there: no side hears of it. At the end of stdin it prints {"frames": handed on, "delayed": of these}, and the devices go with it."""
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
LONGEST_FRAME = 65536


def open_tap(namespace, device):
    """It stays in the namespace of the thread that opened it."""
    os.setns(os.open(f"/run/netns/{namespace}", os.O_RDONLY), os.CLONE_NEWNET)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def hand_on(tap, frame):
    try:
        os.write(tap, frame)
    except OSError:
        pass  # that end is down


def main():
    first, second, device, share, seconds, seed = sys.argv[1:]
    share, seconds, draw = float(share), float(seconds), random.Random(int(seed))
    taps = [open_tap(namespace, device) for namespace in (first, second)]
    other = {taps[0]: taps[1], taps[1]: taps[0]}
    print("ready", flush=True)
    frames = delayed = 0
    cut, held = False, []  # (due time, order, device, frame)
    while True:
        while held and held[0][0] <= time.monotonic():
            hand_on(*heapq.heappop(held)[2:])
        wait = max(0, held[0][0] - time.monotonic()) if held else None
        for ready in select.select([*taps, sys.stdin], [], [], wait)[0]:
            if ready is sys.stdin:
                if sys.stdin.readline() == "":
                    return print(json.dumps({"frames": frames, "delayed": delayed}))
                cut, held = True, []
                continue
            try:
                frame = os.read(ready, LONGEST_FRAME)
            except OSError:
                continue  # that end is down
            if cut:
                continue
            frames += 1
            if draw.random() < share:
                delayed += 1
                heapq.heappush(held, (time.monotonic() + seconds, frames, other[ready], frame))
            else:
                hand_on(other[ready], frame)


if __name__ == "__main__":
    main()
