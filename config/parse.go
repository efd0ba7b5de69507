// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"os"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Load reads and parses a file. Its errors are those of Parse, with the path
// before them, and those of the file system.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := ParseWith(text, func(name string) (*Ruleset, error) { return ReadRuleset(path, name) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse is ParseWith for a text that can name no files.
func Parse(text []byte) (*Config, error) {
	return ParseWith(text, func(string) (*Ruleset, error) { return nil, errors.New("no file can be named here") })
}

// ParseWith decodes and validates a file's text. rulesets finds the files of rulesets
// that it names. Its error is an *Error.
func ParseWith(text []byte, rulesets func(name string) (*Ruleset, error)) (*Config, error) {
	if len(text) > MaxSize {
		return nil, &Error{Message: fmt.Sprintf("the file is larger than %d bytes", MaxSize)}
	}
	tokens := joinPlain(lexer.Tokenize(string(text)))
	if err := refuseTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, decodeError(err, nil)
	}
	body, err := onlyDocument(file)
	if err != nil {
		return nil, err
	}
	var raw rawFile
	if err := yaml.NodeToValue(body, &raw, yaml.Strict()); err != nil {
		return nil, decodeError(err, file)
	}
	v := &validator{file: file, rulesets: rulesets}
	c := v.config(&raw)
	c.file = file
	if v.err != nil {
		return nil, v.err
	}
	return c, nil
}

// Bounds on the shape of the text. The YAML library takes time quadratic in the
// nesting; a file of networks nests four deep.
const (
	maxFlowDepth = 16
	maxColumn    = 512
)

// refuseTokens rejects what a file of networks has no need of: aliases can make
// a small text stand for a huge one, tags name types of other programs, deep
// nesting costs time.
func refuseTokens(tokens token.Tokens) error {
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType:
			return tokenError(t, fmt.Sprintf("%q: anchors, aliases, merge keys and tags are not supported", t.Value))
		case token.InvalidType:
			return tokenError(t, "not YAML: "+t.Error)
		case token.OctetIntegerType, token.HexIntegerType, token.BinaryIntegerType:
			return tokenError(t, fmt.Sprintf("%q would be read as another number than it looks; quote it, or write it in decimal", t.Value))
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		default:
		}
		if depth > maxFlowDepth || t.Position.Column > maxColumn {
			return tokenError(t, fmt.Sprintf("nested deeper than %d or beyond column %d", maxFlowDepth, maxColumn))
		}
	}
	return nil
}

func tokenError(t *token.Token, message string) error {
	return &Error{Line: t.Position.Line, Message: message}
}

// onlyDocument returns the mapping that the file is.
func onlyDocument(file *ast.File) (ast.Node, error) {
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, &Error{Line: doc.Body.GetToken().Position.Line, Message: "second document; expected one"}
		}
		body = doc.Body
	}
	if body == nil {
		return nil, &Error{Field: "networks", Message: "missing; an empty list (networks: []) declares that there are none"}
	}
	if body.Type() != ast.MappingType && body.Type() != ast.MappingValueType {
		return nil, &Error{Line: body.GetToken().Position.Line, Message: "must be a mapping with the field networks"}
	}
	return body, nil
}
