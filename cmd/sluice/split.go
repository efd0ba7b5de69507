// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// Bounds of a batch. A line is counted with its continuations.
const (
	maxLineBytes = 64 << 10
	maxLineWords = 511 // MAX_ARGS of iproute2, less the null that ends them
)

// Faults in the writing of a batch.
var (
	errContinuation = usagef("missing continuation line")
	errQuote        = usagef("unterminated quoted string")
	errLongLine     = usagef("line too long")
	errManyWords    = usagef("too many words in a line")
)

// batchReader reads the lines of a batch as getcmdline() and makeargs() of
// iproute2 do: a # begins a comment, also inside of a word or quotes; a backslash
// at the very end of a line continues it; a quote at the begin of a word, ' or ",
// lasts to the next one of its kind, which ends the word; nothing is escaped.
type batchReader struct {
	in   *bufio.Reader
	line int // number of the last line read, from 1
}

func newBatchReader(in io.Reader) *batchReader {
	return &batchReader{in: bufio.NewReaderSize(in, maxLineBytes)}
}

// next returns the words of the next line that has any; io.EOF at the end.
func (b *batchReader) next() ([]string, error) {
	for {
		text, err := b.text()
		if err != nil {
			return nil, err
		}
		words, err := splitWords(text)
		if err != nil || len(words) > 0 {
			return words, err
		}
	}
}

// text returns the next line with its continuations.
func (b *batchReader) text() (string, error) {
	text, err := b.physical()
	if err != nil {
		return "", err
	}
	for {
		before, more := strings.CutSuffix(text, "\\\n")
		if !more {
			return text, nil
		}
		next, err := b.physical()
		switch {
		case errors.Is(err, io.EOF):
			return "", errContinuation
		case err != nil:
			return "", err
		}
		if text = before + next; len(text) > maxLineBytes {
			return "", errLongLine
		}
	}
}

// physical returns one line of the file, less its comment.
func (b *batchReader) physical() (string, error) {
	text, err := b.in.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(text) > 0 {
		err = nil // the last line need not end in a newline
	}
	if err == nil || errors.Is(err, bufio.ErrBufferFull) {
		b.line++
	}
	if errors.Is(err, bufio.ErrBufferFull) {
		err = errLongLine
	}
	before, _, _ := strings.Cut(string(text), "#")
	return before, err
}

// splitWords cuts a line into words.
func splitWords(text string) ([]string, error) {
	const white = " \t\r\n"
	var words []string
	for {
		if text = strings.TrimLeft(text, white); text == "" {
			return words, nil
		}
		if len(words) == maxLineWords {
			return nil, errManyWords
		}
		if quote := text[:1]; quote == "'" || quote == `"` {
			word, rest, closed := strings.Cut(text[1:], quote)
			if !closed {
				return nil, errQuote
			}
			words, text = append(words, word), rest
			continue
		}
		end := strings.IndexAny(text, white)
		if end < 0 {
			return append(words, text), nil
		}
		words, text = append(words, text[:end]), text[end:]
	}
}
