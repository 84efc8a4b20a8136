// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace dekoder {

/// A key that got another name.
struct KeyRename {
  int version;         ///< of the first configurations that have the new name
  std::string before;  ///< "section.key"; no later key may take this name
  std::string now;
};

/// The form of configurations: its version, which every written configuration carries as `version:` (a file without
/// is of version 1), and what was called otherwise in earlier versions, oldest first. Older files are read under
/// their old names; a file of a later version is refused.
struct ConfigFormat {
  int version = 1;
  std::vector<KeyRename> renames;
};

/// That of this program.
const ConfigFormat& config_format();

}  // namespace dekoder
