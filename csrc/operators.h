// The operators' schemas for programs without Python, each beside its CPU kernel. Those of ppl_fast/ops are the same:
// tests/test_cpp_program.py.
#pragma once

#include <initializer_list>

namespace ppl_fast {

// A static one in <op>_cpu.cpp enters the schemas of an operator as the library is loaded.
struct Schemas {
  Schemas(std::initializer_list<const char*> schemas);
};

}  // namespace ppl_fast
