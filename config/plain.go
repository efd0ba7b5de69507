// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"

	"github.com/goccy/go-yaml/token"
)

// joinPlain puts the plain scalars of flow sequences together again. A plain scalar
// ends at a colon only if a blank or an indicator follows (YAML 1.2 §7.3.3), but
// where a flow mapping is around the sequence the lexer cuts at any colon:
// {subnets: [fd44::/64]}, {static: [02:00:00:00:00:09 dev red]}.
func joinPlain(tokens token.Tokens) token.Tokens {
	var out token.Tokens
	var open []token.Type // the brackets around the token
	for len(tokens) > 0 {
		t := tokens[0]
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open = append(open, t.Type)
		case token.SequenceEndType, token.MappingEndType:
			open = open[:max(len(open)-1, 0)]
		default:
		}
		inSequence := len(open) > 0 && open[len(open)-1] == token.SequenceStartType
		for inSequence && isCut(t, tokens[1:]) {
			rest := tokens[2]
			t = token.String(t.Value+":"+rest.Value, t.Origin+":"+rest.Origin, t.Position)
			tokens = tokens[2:]
		}
		out.Add(t)
		tokens = tokens[1:]
	}
	return out
}

// isCut reports whether a colon and a plain scalar follow without a blank.
func isCut(t *token.Token, next token.Tokens) bool {
	return len(next) > 1 && isPlain(t) && isPlain(next[1]) && next[0].Type == token.MappingValueType && next[0].Origin == ":" &&
		strings.TrimRight(t.Origin, " \t\r\n") == t.Origin && strings.TrimLeft(next[1].Origin, " \t\r\n") == next[1].Origin
}

func isPlain(t *token.Token) bool { return t.Indicator == token.NotIndicator }
