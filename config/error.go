// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Error is one fault of a file.
type Error struct {
	// Line counts from 1; 0 when the fault has no place, as in an empty file.
	Line int
	// Field is the path of the field, as networks[0].mtu; empty for faults of
	// the YAML itself.
	Field string
	// Message says what was found and what was expected.
	Message string
}

// Error returns "line N: field: message", without the parts that are not known.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	return b.String() + e.Message
}

// decodeError turns an error of the YAML library into ours. The library knows
// the token at fault; the tree tells which field that is.
func decodeError(err error, file *ast.File) *Error {
	var y yaml.Error
	if !errors.As(err, &y) {
		return &Error{Message: err.Error()}
	}
	e := &Error{Message: y.GetMessage()}
	tk := y.GetToken()
	if tk == nil || tk.Position == nil {
		return e
	}
	e.Line = tk.Position.Line
	if file == nil {
		return e
	}
	e.Field = pathAt(file, tk.Position.Offset)
	switch t := err.(type) { //nolint:errorlint // the library returns these unwrapped; others keep its words
	case *yaml.UnknownFieldError:
		e.Message = "unknown field; expected " + expectedBeside(e.Field)
	case *yaml.TypeError:
		e.Message = "must be " + typeWord(t.DstType)
	case *yaml.OverflowError:
		e.Message = "number out of range"
	case *yaml.UnexpectedNodeTypeError:
		e.Message = "must be " + nodeWord(t.Expected)
	}
	return e
}

// nodeWord says what kind of YAML was expected.
func nodeWord(t ast.NodeType) string {
	switch t {
	case ast.SequenceType:
		return "a list"
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	default:
		return "a " + t.YAMLName()
	}
}

// pathAt returns the path of the field whose key or value begins at an offset.
func pathAt(file *ast.File, offset int) string {
	v := &finder{offset: offset}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			ast.Walk(v, doc.Body)
		}
	}
	return strings.TrimPrefix(strings.TrimPrefix(v.path, "$"), ".")
}

// finder is an ast.Visitor that remembers the last, which is the deepest, node
// that begins at offset.
type finder struct {
	offset int
	path   string
}

// Visit implements ast.Visitor.
func (f *finder) Visit(n ast.Node) ast.Visitor {
	if tk := n.GetToken(); tk != nil && tk.Position != nil && tk.Position.Offset == f.offset && n.GetPath() != "" {
		f.path = n.GetPath()
	}
	return f
}
