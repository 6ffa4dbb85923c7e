// Says which instruction set it was asked to use, then reads calls of operators and writes what each returns, as
// __init__.py has them, until there are no more.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <stdexcept>

#include "simd_dispatch.h"
#include "torch_stand_in.h"

using stand_in::Tensor;

static int64_t number(std::istream& in) {
  int64_t value;
  if (!in.read(reinterpret_cast<char*>(&value), sizeof(value))) throw std::runtime_error("a call ends early");
  return value;
}

static void put(std::ostream& out, int64_t value) { out.write(reinterpret_cast<const char*>(&value), sizeof(value)); }

static uint64_t argument(std::istream& in) {
  const int64_t kind = number(in);
  if (kind == 't') {
    const int32_t type = number(in);
    std::vector<int64_t> sizes(number(in));
    for (int64_t& size : sizes) size = number(in);
    Tensor* const tensor = new Tensor(type, sizes);  // the kernel deletes it
    in.read(tensor->data->data(), tensor->data->size());
    return reinterpret_cast<uint64_t>(tensor);
  }
  const uint64_t value = number(in);  // of an integer, the bits of a double, or nothing
  return kind == 'o' ? reinterpret_cast<uint64_t>(new uint64_t(value)) : value;  // an optional number
}

int main(int, char** argv) try {
  std::ios::sync_with_stdio(false);
  ppl_fast::use_isa(argv[1]);
  std::cout << ppl_fast::name_of(ppl_fast::current_isa()) << std::endl;
  while (std::cin.peek() != EOF) {
    std::string name(number(std::cin), '\0');
    std::cin.read(name.data(), name.size());
    std::vector<uint64_t> stack(number(std::cin));
    const int64_t arguments = stack.size(), outputs = number(std::cin);
    for (uint64_t& each : stack) each = argument(std::cin);
    stack.resize(std::max(arguments, outputs));
    stand_in::find(name)(stack.data(), arguments, outputs);
    for (int64_t i = 0; i < outputs; ++i) {
      const std::unique_ptr<Tensor> tensor(reinterpret_cast<Tensor*>(stack[i]));
      put(std::cout, tensor->type), put(std::cout, tensor->sizes.size());
      for (const int64_t size : tensor->sizes) put(std::cout, size);
      std::cout.write(tensor->data->data(), tensor->data->size());
    }
    std::cout.flush();
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
