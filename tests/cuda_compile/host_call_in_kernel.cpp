// SPDX-License-Identifier: Apache-2.0
// What the CUDA compile check exists for: a host function called from device code. nvcc must refuse it.
int host_only(int x);

template <class Body>
__global__ void launch(Body body) {
  body();
}

void call_host_from_device() {
  launch<<<1, 1>>>([=] __device__() { host_only(1); });
}
