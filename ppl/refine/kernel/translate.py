"""From the statements of a kernel to LLVM assembly.

The values in here are Python numbers while they are constant, LLVM values, and for vectors tuples of these.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir

from ppl.refine.kernel.language import BOOL, F32, I64, U8, Kernel, Operation, as_type

__all__ = ["translate"]


def translate(entry: Kernel, constants: Mapping[str, int], symbol: str) -> str:
    """LLVM assembly of a kernel and of all that it calls.

    Args:
        entry: the kernel.
        constants: the values of its constants.
        symbol: its name in the assembly.
    """
    module = ir.Module(entry.name)
    done: dict[Any, Any] = {}

    def function_of(wanted: Kernel, values: Mapping[str, int]) -> Any:
        key = wanted.name, *values.items()
        if key not in done:
            kinds = [kind for kind in wanted.parameters.values() if kind is not None]
            name = symbol if wanted is entry else "_".join(str(part) for part in (wanted.name, *values.values()))
            function = done[key] = ir.Function(module, ir.FunctionType(wanted.returns, kinds), name)
            for argument, kind in zip(function.args, kinds, strict=True):
                if isinstance(kind, ir.PointerType):
                    argument.add_attribute("noalias")
            if wanted is not entry:
                function.linkage = "internal"
                function.attributes.add("alwaysinline" if wanted.inlined else "noinline")
            _Translator(function, wanted, values, function_of).run()
        return done[key]

    function_of(entry, constants)
    return str(module)


# What Python does with two constants, and the instructions for whole numbers and for reals.
_ARITHMETIC: dict[type[ast.operator], tuple[Callable[[Any, Any], Any], str | None, str | None]] = {
    ast.Add: (operator.add, "add", "fadd"),
    ast.Sub: (operator.sub, "sub", "fsub"),
    ast.Mult: (operator.mul, "mul", "fmul"),
    ast.Div: (operator.truediv, None, "fdiv"),
    ast.FloorDiv: (operator.floordiv, "sdiv", None),
    ast.Mod: (operator.mod, "srem", None),
    ast.LShift: (operator.lshift, "shl", None),
    ast.RShift: (operator.rshift, "ashr", None),
    ast.BitAnd: (operator.and_, "and_", None),
    ast.BitOr: (operator.or_, "or_", None),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[Callable[[Any, Any], bool], str]] = {
    ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="),
    ast.Gt: (operator.gt, ">"),
    ast.GtE: (operator.ge, ">="),
    ast.Eq: (operator.eq, "=="),
    ast.NotEq: (operator.ne, "!="),
}


class _Translator(ast.NodeVisitor):
    """One function; every `visit_` of an expression returns its value."""

    def __init__(self, function: Any, source: Kernel, constants: Mapping[str, int], function_of: Any) -> None:
        self.source, self.function_of = source, function_of
        self.entry = ir.IRBuilder(function.append_basic_block())  # nothing but the places of variables
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.first = self.builder.block
        self.values: dict[str, Any] = dict(constants)
        self.places: dict[str, Any] = {}
        self.loops: list[tuple[Any, Any]] = []
        names = (name for name, kind in source.parameters.items() if kind is not None)
        self.values |= zip(names, function.args, strict=True)

    def run(self) -> None:
        body = self.source.body()
        assigned = {
            node.id
            for statement in body
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for name in assigned & set(self.values):
            self.assign(ast.Name(name, ast.Store()), self.values[name])
        self.block(body)
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        self.entry.branch(self.first)

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:
                break
            self.visit(statement)

    def generic_visit(self, node: ast.AST) -> Any:
        line = getattr(node, "lineno", 0)
        raise TypeError(f"{self.source.name}, line {line}: kernels do without {type(node).__name__}")

    # Statements

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # the docstring
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Tuple):
            values: Any = [self.visit(element) for element in node.value.elts]
        else:
            values = self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Tuple):
                for name, value in zip(target.elts, values, strict=True):
                    self.assign(name, value)
            else:
                self.assign(target, values)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Subscript):
            place = self.place_of(node.target)
            old = self.builder.load(place)
            new = self.arithmetic(node.op, old, self.visit(node.value))
            self.builder.store(as_type(self.builder, new, old.type), place)
        else:
            assert isinstance(node.target, ast.Name)
            self.assign(node.target, self.arithmetic(node.op, self.name(node.target.id), self.visit(node.value)))

    def assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Subscript):
            place = self.place_of(target)
            self.builder.store(as_type(self.builder, value, place.type.pointee), place)
            return
        assert isinstance(target, ast.Name)
        pieces = value if isinstance(value, tuple) else (value,)
        if target.id not in self.places:
            kinds = [
                piece.type if isinstance(piece, ir.Value) else F32 if isinstance(piece, float) else I64
                for piece in pieces
            ]
            self.places[target.id] = isinstance(value, tuple), [self.entry.alloca(kind) for kind in kinds]
        for piece, place in zip(pieces, self.places[target.id][1], strict=True):
            self.builder.store(as_type(self.builder, piece, place.type.pointee), place)

    def visit_If(self, node: ast.If) -> None:
        condition = self.truth(self.visit(node.test))
        if isinstance(condition, bool):
            self.block(node.body if condition else node.orelse)
            return
        then, otherwise, after = (self.builder.append_basic_block() for _ in range(3))
        self.builder.cbranch(condition, then, otherwise)
        for start, statements in ((then, node.body), (otherwise, node.orelse)):
            self.builder.position_at_end(start)
            self.block(statements)
            if not self.builder.block.is_terminated:
                self.builder.branch(after)
        self.builder.position_at_end(after)

    def visit_While(self, node: ast.While) -> None:
        test, body, after = (self.builder.append_basic_block() for _ in range(3))
        self.builder.branch(test)
        self.builder.position_at_end(test)
        condition = self.truth(self.visit(node.test))
        if isinstance(condition, bool):
            condition = ir.Constant(BOOL, condition)
        self.builder.cbranch(condition, body, after)
        self.loop(body, node.body, test, after)

    def visit_For(self, node: ast.For) -> None:
        assert isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name) and node.iter.func.id == "range"
        limits = [as_type(self.builder, self.visit(argument), I64) for argument in node.iter.args]
        start, stop, step = {1: [I64(0), *limits, I64(1)], 2: [*limits, I64(1)], 3: limits}[len(limits)]
        counter = self.entry.alloca(I64)
        self.builder.store(start, counter)
        test, body, following, after = (self.builder.append_basic_block() for _ in range(4))
        self.builder.branch(test)
        self.builder.position_at_end(test)
        self.builder.cbranch(self.builder.icmp_signed("<", self.builder.load(counter), stop), body, after)
        self.builder.position_at_end(body)
        self.assign(node.target, self.builder.load(counter))
        self.loop(body, node.body, following, after)
        self.builder.position_at_end(following)
        self.builder.store(self.builder.add(self.builder.load(counter), step, flags=("nsw",)), counter)
        self.builder.branch(test)
        self.builder.position_at_end(after)

    def loop(self, body: Any, statements: list[ast.stmt], again: Any, after: Any) -> None:
        self.loops.append((again, after))
        self.builder.position_at_end(body)
        self.block(statements)
        if not self.builder.block.is_terminated:
            self.builder.branch(again)
        self.loops.pop()
        self.builder.position_at_end(after)

    def visit_Break(self, node: ast.Break) -> None:
        self.builder.branch(self.loops[-1][1])

    def visit_Continue(self, node: ast.Continue) -> None:
        self.builder.branch(self.loops[-1][0])

    def visit_Return(self, node: ast.Return) -> None:
        assert node.value is not None
        self.builder.ret(as_type(self.builder, self.visit(node.value), self.source.returns))

    # Expressions

    def visit_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def visit_Name(self, node: ast.Name) -> Any:
        return self.name(node.id)

    def name(self, name: str) -> Any:
        if name in self.places:
            many, places = self.places[name]
            pieces = tuple(self.builder.load(place) for place in places)
            return pieces if many else pieces[0]
        return self.values[name] if name in self.values else self.source.scope[name]

    def place_of(self, node: ast.Subscript) -> Any:
        index = as_type(self.builder, self.visit(node.slice), I64)
        return self.builder.gep(self.visit(node.value), [index], inbounds=True)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        value = self.builder.load(self.place_of(node))
        return self.builder.zext(value, I64) if value.type == U8 else value

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return not truth if isinstance(truth, bool) else self.builder.not_(truth)
        assert isinstance(node.op, ast.USub)
        return (
            -value
            if isinstance(value, int | float)
            else self.arithmetic(ast.Sub(), -0.0 if value.type == F32 else 0, value)
        )

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        return self.arithmetic(node.op, self.visit(node.left), self.visit(node.right))

    def arithmetic(self, sign: ast.operator, left: Any, right: Any) -> Any:
        if type(sign) not in _ARITHMETIC:
            self.generic_visit(sign)
        fold, whole, real = _ARITHMETIC[type(sign)]
        if isinstance(left, int | float) and isinstance(right, int | float):
            return fold(left, right)
        if isinstance(left, ir.Value) and isinstance(left.type, ir.PointerType):
            return self.builder.gep(left, [as_type(self.builder, right, I64)], inbounds=True)
        left, right = self.alike(left, right)
        name = real if left.type == F32 else whole
        if name is None:
            raise TypeError(f"{self.source.name}: no {type(sign).__name__} of {left.type}")
        return getattr(self.builder, name)(left, right)

    def alike(self, left: Any, right: Any) -> tuple[Any, Any]:
        kinds = [value.type for value in (left, right) if isinstance(value, ir.Value)]
        # Two of a kind stay what they are; Python numbers count as 64 bits.
        kind = kinds[0] if len(kinds) == 2 and kinds[0] == kinds[1] else F32 if F32 in kinds else I64
        return as_type(self.builder, left, kind), as_type(self.builder, right, kind)

    def visit_Compare(self, node: ast.Compare) -> Any:
        fold, sign = _COMPARISONS[type(node.ops[0])]
        left, right = self.visit(node.left), self.visit(node.comparators[0])
        if isinstance(left, int | float) and isinstance(right, int | float):
            return fold(left, right)
        left, right = self.alike(left, right)
        compare = self.builder.fcmp_ordered if left.type == F32 else self.builder.icmp_signed
        return compare(sign, left, right)

    def truth(self, value: Any) -> Any:
        if isinstance(value, int | float):
            return bool(value)
        return value if value.type == BOOL else self.builder.icmp_signed("!=", value, value.type(0))

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        left, *others = node.values
        result = self.truth(self.visit(left))
        for other in others:
            if isinstance(result, bool):
                if result == isinstance(node.op, ast.And):
                    result = self.truth(self.visit(other))
                continue
            before, further, after = (
                self.builder.block,
                self.builder.append_basic_block(),
                self.builder.append_basic_block(),
            )
            targets = (further, after) if isinstance(node.op, ast.And) else (after, further)
            self.builder.cbranch(result, *targets)
            self.builder.position_at_end(further)
            right = as_type(self.builder, self.truth(self.visit(other)), BOOL)
            end = self.builder.block
            self.builder.branch(after)
            self.builder.position_at_end(after)
            chosen = self.builder.phi(BOOL)
            chosen.add_incoming(result, before)
            chosen.add_incoming(right, end)
            result = chosen
        return result

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        condition = self.truth(self.visit(node.test))
        if isinstance(condition, bool):
            return self.visit(node.body if condition else node.orelse)
        then, otherwise, after = (self.builder.append_basic_block() for _ in range(3))
        self.builder.cbranch(condition, then, otherwise)
        self.builder.position_at_end(then)
        left, left_end = self.visit(node.body), self.builder.block
        self.builder.position_at_end(otherwise)
        right, right_end = self.visit(node.orelse), self.builder.block
        kinds = {_type_of(left), _type_of(right)}
        kind = F32 if F32 in kinds else kinds.pop() if len(kinds) == 1 else I64
        incoming = []
        for value, end in ((left, left_end), (right, right_end)):
            self.builder.position_at_end(end)
            incoming.append((as_type(self.builder, value, kind), end))
            self.builder.branch(after)
        self.builder.position_at_end(after)
        chosen = self.builder.phi(kind)
        for value, end in incoming:
            chosen.add_incoming(value, end)
        return chosen

    def visit_Call(self, node: ast.Call) -> Any:
        assert isinstance(node.func, ast.Name)
        arguments = [self.visit(argument) for argument in node.args]
        called = self.source.scope.get(node.func.id)
        if isinstance(called, Operation):
            return called.emit(self.builder, *arguments)
        if not isinstance(called, Kernel):
            raise TypeError(f"{self.source.name}: {node.func.id} is neither a kernel nor an operation")
        given = dict(zip(called.parameters, arguments, strict=True))
        constants = {name: given.pop(name) for name, kind in called.parameters.items() if kind is None}
        converted = [as_type(self.builder, value, called.parameters[name]) for name, value in given.items()]
        return self.builder.call(self.function_of(called, constants), converted)


def _type_of(value: Any) -> Any:
    return value.type if isinstance(value, ir.Value) else F32 if isinstance(value, float) else I64
