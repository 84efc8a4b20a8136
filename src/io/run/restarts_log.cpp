// SPDX-License-Identifier: Apache-2.0
#include "io/run/restarts_log.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "base/decimal.hpp"
#include "base/process_space.hpp"
#include "io/files/input_file.hpp"
#include "io/run/lock_file.hpp"
#include "io/run/metrics_log.hpp"

namespace dekoder {

namespace {

using Json = nlohmann::ordered_json;

/// "2026-11-24T21:40:03.250Z" of seconds since 1970.
std::string utc_text(double seconds) {
  const auto milliseconds = static_cast<long long>(std::llround(seconds * 1000));
  const auto whole = static_cast<std::time_t>(milliseconds / 1000);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", std::gmtime(&whole));
  return fmt::format("{}.{:03}Z", text, milliseconds % 1000);
}

/// The inverse. Throws std::runtime_error.
double seconds_of_utc(const std::string& text) {
  std::tm time = {};
  const char* const rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &time);
  double fraction = 0;
  if (rest == nullptr || !text.ends_with('Z') ||
      (*rest != 'Z' && read_decimal(std::string(rest, text.c_str() + text.size() - 1), fraction) != Decimal::read))
    throw std::runtime_error(text + " is no time");
  return double(::timegm(&time)) + fraction;
}

Json rounded(double seconds) {
  return std::round(seconds * 1000) / 1000;
}

struct Begin {
  double time = 0;  ///< seconds since 1970
  long step = 0, lost_steps = 0;
};

/// What is known of earlier starts. Lines that were edited, so that they cannot be read or cannot be, are left out.
struct EarlierStarts {
  std::vector<Begin> begins;
  bool ended = true;        ///< the last of them
  double wall_seconds = 0;  ///< of those that ended
  std::uint64_t bytes = 0;  ///< of whole lines

  explicit EarlierStarts(const std::string& text) {
    bytes = text.rfind('\n') + 1;  // npos + 1 is 0
    std::istringstream lines(text.substr(0, bytes));
    for (std::string line; std::getline(lines, line);) try {
        add(Json::parse(line));
      } catch (const std::exception&) {
      }
  }

 private:
  static constexpr long most_steps = 1L << 40;
  static constexpr double most_seconds = 1e9;  // thirty years

  void add(const Json& row) {
    if (row.at("event") == "begin") {
      const Begin begin{seconds_of_utc(row.at("time").get<std::string>()), row.at("step").get<long>(),
                        row.at("lost_steps").get<long>()};
      if (!(begin.time >= 0 && begin.step >= 0 && begin.lost_steps >= 0 && begin.lost_steps < most_steps))
        throw std::runtime_error("no start of a run");
      begins.push_back(begin);
      ended = false;
    } else if (row.at("event") == "end") {
      const double seconds = row.at("wall_seconds").get<double>();
      if (!(seconds >= 0 && seconds < most_seconds)) throw std::runtime_error("no time of a start");
      wall_seconds += seconds;
      ended = true;
    }
  }
};

/// Seconds since 1970; 0 where there is no file.
double modification_time(const std::filesystem::path& file) {
  struct stat found = {};
  if (::stat(file.c_str(), &found) != 0) return 0;
  return double(found.st_mtim.tv_sec) + 1e-9 * double(found.st_mtim.tv_nsec);
}

}  // namespace

RestartsLog::RestartsLog(const RunPaths& paths, long step, int ranks, std::function<void()> require_ours)
    : first_step_(step), ranks_(ranks), paths_(paths) {
  std::error_code ignored;  // a link whose target is missing gets one
  const bool there = std::filesystem::exists(paths.restarts(), ignored);
  const EarlierStarts earlier(there ? read_text_file(paths.restarts(), "log of a run's starts").value_or("") : "");
  const std::vector<StepTime> times = read_step_times(paths.metrics());
  const long last = times.empty() ? step : times.back().step;
  lost_steps_ = std::max(last - step, 0L);
  repeated_steps_ = lost_steps_;
  earlier_starts_ = static_cast<long>(earlier.begins.size());
  earlier_seconds_ = earlier.wall_seconds;
  log_.emplace(paths.restarts(), earlier.bytes, std::move(require_ours));
  if (earlier.begins.empty()) return;  // steps of a program without this log count neither as time nor as steps
  for (const Begin& begin : earlier.begins) repeated_steps_ += begin.lost_steps;
  for (const StepTime& time : times)
    if (earlier.begins.front().step < time.step && time.step <= step) counted_seconds_ += time.seconds;
  if (earlier.ended) return;
  const Begin& crashed = earlier.begins.back();
  double step_seconds = 0;
  for (const StepTime& time : times)
    if (time.step > crashed.step) step_seconds += time.seconds;
  const double seen = std::max(modification_time(paths.metrics()), crashed.time + step_seconds),
               wall = seen - crashed.time;
  earlier_seconds_ += wall;
  unended_ = Json({{"event", "end"},
                   {"time", utc_text(seen)},
                   {"step", std::max(last, crashed.step)},
                   {"reason", "crashed or killed: it left no word"},
                   {"steps", std::max(last - crashed.step, 0L)},
                   {"wall_seconds", rounded(wall)},
                   {"step_seconds", rounded(step_seconds)},
                   {"save_seconds", nullptr},
                   {"effective_time", nullptr}})
                 .dump() +
             "\n";
}

void RestartsLog::begin() {
  log_->cut();  // what a start that was killed has left of a line
  const char* job = std::getenv("SLURM_JOB_ID");
  const Json row = {{"event", "begin"},         {"time", utc_text(local_time() - process_age())},
                    {"step", first_step_},      {"ranks", ranks_},
                    {"host", host_name()},      {"job", job == nullptr ? Json() : Json(job)},
                    {"lost_steps", lost_steps_}};
  log_->append(unended_ + row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void RestartsLog::step_done(double seconds) {
  step_seconds_ += seconds;
  counted_seconds_ += seconds;
}

void RestartsLog::end(long step, long saved_step, const std::string& reason) {
  if (saved_step < step)
    for (const StepTime& time : read_step_times(paths_.metrics()))
      if (time.step > saved_step) counted_seconds_ -= time.seconds;
  counted_seconds_ = std::max(counted_seconds_, 0.0);  // of none but those: the log has times rounded
  const double wall_seconds = process_age();
  const Json row = {{"event", "end"},
                    {"time", utc_text(local_time())},
                    {"step", step},
                    {"reason", reason},
                    {"steps", step - first_step_},
                    {"wall_seconds", rounded(wall_seconds)},
                    {"step_seconds", rounded(step_seconds_)},
                    {"save_seconds", rounded(save_seconds_)},
                    {"effective_time", std::round(effective_time(earlier_seconds_ + wall_seconds) * 1e4) / 1e4}};
  log_->append(row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

double RestartsLog::effective_time(double wall_seconds) const {
  return wall_seconds > 0 ? counted_seconds_ / wall_seconds : 0;
}

std::string RestartsLog::summary() const {
  const long starts = earlier_starts_ + 1;
  const double wall_seconds = earlier_seconds_ + process_age();
  return fmt::format("effective time {:.1f} % of {} in {} start{}{}", 100 * effective_time(wall_seconds),
                     time_text(wall_seconds), starts, starts == 1 ? "" : "s",
                     repeated_steps_ == 0   ? ""
                     : repeated_steps_ == 1 ? " (1 step was computed twice)"
                                            : fmt::format(" ({} steps were computed twice)", repeated_steps_));
}

}  // namespace dekoder
