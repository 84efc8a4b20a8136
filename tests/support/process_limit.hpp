// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

namespace dekoder::testing_support {

/// Lowers a limit of this process (RLIMIT_FSIZE, RLIMIT_NOFILE) until the end of the scope. SIGXFSZ is ignored
/// meanwhile, as the command does, so that a file that would grow too large is reported as EFBIG.
class ProcessLimit {
 public:
  ProcessLimit(int resource, rlim_t limit) : resource_(resource), signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    if (::getrlimit(which(), &before_) != 0) throw std::runtime_error("getrlimit");
    rlimit lowered = before_;
    lowered.rlim_cur = limit;
    if (::setrlimit(which(), &lowered) != 0) throw std::runtime_error("setrlimit");
  }
  ~ProcessLimit() {
    ::setrlimit(which(), &before_);
    std::signal(SIGXFSZ, signal_);
  }
  ProcessLimit(const ProcessLimit&) = delete;
  ProcessLimit& operator=(const ProcessLimit&) = delete;

 private:
  __rlimit_resource which() const { return static_cast<__rlimit_resource>(resource_); }

  int resource_;
  rlimit before_{};
  void (*signal_)(int);
};

/// The number that the next descriptor gets: with it as RLIMIT_NOFILE nothing more can be opened.
inline int free_descriptor() {
  const int descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(descriptor);
  return descriptor;
}

}  // namespace dekoder::testing_support
