// SPDX-License-Identifier: Apache-2.0
#include "config/config_format.hpp"

namespace dekoder {

const ConfigFormat& config_format() {
  static const ConfigFormat format{.version = 1, .renames = {}};
  return format;
}

}  // namespace dekoder
