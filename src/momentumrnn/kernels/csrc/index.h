// Sizes, and places in arrays. Not long, which has 32 bits on Windows.
#pragma once

#include <cstddef>

namespace momentumrnn {

using Index = std::ptrdiff_t;

}  // namespace momentumrnn
