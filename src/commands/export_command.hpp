// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/command.hpp"

namespace dekoder {

/// Writes the model of a checkpoint as a folder that transformers loads; returns what to print. The folder is new,
/// or empty, or one of an export that was cut off; config.json comes last. Throws ConfigError where no architecture
/// there holds the model, DataError.
std::string export_model(const Command& command);

}  // namespace dekoder
