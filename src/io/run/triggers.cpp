// SPDX-License-Identifier: Apache-2.0
#include "io/run/triggers.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/log.hpp"

namespace dekoder {

namespace {

struct NamedTrigger {
  Trigger trigger;
  const char* name;
};
constexpr NamedTrigger named_triggers[] = {{checkpoint_now, "checkpoint_now"},
                                           {evaluate_now, "evaluate_now"},
                                           {attention_now, "attention_now"},
                                           {stop_file, "stop"}};

}  // namespace

int TriggerFiles::take(Clock::time_point now) {
  if (looked_ && now - *looked_ < std::chrono::seconds(1)) return 0;
  looked_ = now;
  int taken = 0;
  for (const auto& [trigger, name] : named_triggers) {
    const std::filesystem::path file = root_ / name;
    struct stat found = {};
    if (::lstat(file.c_str(), &found) != 0) continue;
    if (::unlink(file.c_str()) == 0) {
      log_info("taken: {}", file.string());
      taken |= trigger;
    } else if (errno != ENOENT && (warned_ & trigger) == 0) {
      log_warning("{}: ignored, as it cannot be removed: {}; remove it", file.string(), std::strerror(errno));
      warned_ |= trigger;
    }
  }
  return taken;
}

}  // namespace dekoder
