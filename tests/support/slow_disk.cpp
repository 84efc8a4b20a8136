// SPDX-License-Identifier: Apache-2.0
// A library for LD_PRELOAD: while the file DEKODER_SLOW_DISK exists, fsync takes eight seconds, as on a file server
// that many write to.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

extern "C" int fsync(int descriptor) {
  using Fsync = int (*)(int);
  static const auto real = reinterpret_cast<Fsync>(dlsym(RTLD_NEXT, "fsync"));
  const char* file = std::getenv("DEKODER_SLOW_DISK");
  if (file != nullptr && access(file, F_OK) == 0)
    for (unsigned left = 8; left != 0;) left = sleep(left);  // signals end it early
  return real(descriptor);
}
