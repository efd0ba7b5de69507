// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/qdisc"
)

// MaxLines bounds what Declare reads.
const MaxLines = 1024

// LineError is a line that is at fault.
type LineError struct {
	Line int // from 0
	Text string
	Err  error
}

// Error implements error.
func (e *LineError) Error() string { return fmt.Sprintf("%q: %v", e.Text, e.Err) }

// Unwrap is what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

// Declare makes the disciplines of a port of lines, each what stands behind
// "tc qdisc add dev PORT", or that of class or filter with the object first:
//
//	root handle 1: htb default 20
//	class parent 1: classid 1:20 htb rate 8mbit
//	from root tbf rate 4mbit burst 32kb latency 50ms
//
// A direction that no line speaks of is nil. An error is a LineError, or that there are
// too many.
func Declare(lines []string) (egress, ingress *qdisc.Spec, err error) {
	if n := len(lines); n > MaxLines {
		return nil, nil, fmt.Errorf("%d lines; at most %d are supported", n, MaxLines)
	}
	for i, text := range lines {
		spec := &egress
		c, err := declared(strings.Fields(text))
		if err == nil {
			if c.Ingress {
				spec = &ingress
			}
			if *spec == nil {
				*spec = &qdisc.Spec{}
			}
			*spec, err = c.Apply(*spec)
		}
		if err != nil {
			return nil, nil, &LineError{i, text, err}
		}
	}
	return egress, ingress, nil
}

// declared reads one line.
func declared(words []string) (*Command, error) {
	object := "qdisc"
	if len(words) > 0 && slices.Contains([]string{"qdisc", "class", "filter"}, words[0]) {
		object, words = words[0], words[1:]
	}
	if len(words) > 0 && words[0] == "add" {
		words = words[1:]
	}
	if slices.Contains(words, "dev") {
		return nil, errors.New("dev: the port is known")
	}
	return Parse(append([]string{object, "add", "dev", "port"}, words...))
}
