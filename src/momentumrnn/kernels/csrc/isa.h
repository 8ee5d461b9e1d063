// The choice among the instruction sets that the kernels were built for.
#pragma once

#include <string>
#include <vector>

#include "problem.h"

namespace momentumrnn {

// Built and supported by this processor, best first.
std::vector<std::string> instruction_sets();

// The kernels in use.
const Kernels& kernels();

// Throws std::invalid_argument for a name that is not among instruction_sets().
void use_instruction_set(const std::string& name);

}  // namespace momentumrnn
