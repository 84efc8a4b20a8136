// SPDX-License-Identifier: Apache-2.0
// checkpoint_digests FILE: checks every tensor of a checkpoint and prints "<group>/<name> <digest>" for each, so
// that a shell script can compare the states of two runs, which are in files with other names and times of day.
// Exit codes as dekoder's.
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>

#include "base/exit_report.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/checkpoint.hpp"

int main(int argc, char** argv) {
  using namespace dekoder;
  try {
    if (argc != 2) throw ConfigError("expected checkpoint_digests FILE");
    verify_checkpoint(argv[1]);
    const Hdf5File file = Hdf5File::open(argv[1]);
    for (const std::string& group : file.members("/"))
      for (const std::string& name : file.members("/" + group)) {
        const std::string tensor = "/" + group + "/" + name;
        fmt::print("{} {:016x}\n", tensor.substr(1), file.attribute<std::uint64_t>(tensor, "digest"));
      }
    return std::fflush(stdout) == 0 ? 0 : 3;
  } catch (...) {
    return static_cast<int>(report_current_exception());
  }
}
