// The tensors of the stand-in, and the kernels that registered with it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace stand_in {

inline int64_t element_size(int32_t type) {
  constexpr int64_t sizes[] = {1, 1, 2, 4, 8, 2, 4, 8};  // uint8 to int64, float16 to float64
  return sizes[type];
}

struct Tensor {  // contiguous; a copy shares the data
  int32_t type;
  std::vector<int64_t> sizes;
  std::shared_ptr<std::vector<char>> data;

  Tensor(int32_t type, std::vector<int64_t> sizes) : type(type), sizes(std::move(sizes)) {
    data = std::make_shared<std::vector<char>>(numel() * element_size(type));
  }
  int64_t numel() const {
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    return count;
  }
};

using Kernel = void (*)(uint64_t* stack, uint64_t arguments, uint64_t outputs);
Kernel find(const std::string& name);

}  // namespace stand_in
