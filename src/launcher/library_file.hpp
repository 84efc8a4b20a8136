// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace dekoder {

/// Refuses what dlopen would hang at or die of: what is no file, and a library shorter than its ELF headers say, as
/// a full disk leaves one (the kernel ends the process with SIGBUS where it touches a page that is not there). What
/// is no library at all is left to dlopen, which says so. Throws ConfigError.
void check_library_file(const std::filesystem::path& file);

}  // namespace dekoder
