// SPDX-License-Identifier: Apache-2.0
#include "base/helper_thread.hpp"

#include <pthread.h>
#include <sys/resource.h>

#include <csignal>
#include <system_error>
#include <utility>

#include "base/cpu_mask.hpp"
#include "base/error.hpp"
#include "base/exit_report.hpp"

namespace dekoder {

namespace {

/// Signals blocked in this thread, and so in those that it starts.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

/// As `ulimit` prints it: in multiples of `unit`.
std::string limit_text(int resource, rlim_t unit) {
  rlimit limit = {};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return "not known";
  return limit.rlim_cur == RLIM_INFINITY ? "unlimited" : std::to_string(limit.rlim_cur / unit);
}

}  // namespace

std::thread start_helper_thread(const char* name, std::function<void()> work) {
  const SignalsBlocked blocked;
  try {
    return std::thread([name, cpus = process_cpus(), work = std::move(work)] {
      pthread_setname_np(pthread_self(), name);
      cpus.give_to_this_thread();
      try {
        work();
      } catch (...) {
        end_with_current_exception();
      }
    });
  } catch (const std::system_error& error) {
    throw ConfigError("{}", thread_refusal(error.code().message()));
  }
}

std::string thread_refusal(const std::string& reason) {
  return fmt::format(
      "the system starts no further thread ({}); limits: processes and threads of this user (ulimit -u) {}, "
      "address space in kB (ulimit -v) {}, perhaps one of the job or container (pids.max); raise them, end other "
      "programs, or lower OMP_NUM_THREADS",
      reason, limit_text(RLIMIT_NPROC, 1), limit_text(RLIMIT_AS, 1024));
}

}  // namespace dekoder
