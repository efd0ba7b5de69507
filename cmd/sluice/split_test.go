// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// split reads all lines of a batch, each as "NUMBER: [words]".
func split(text string) (lines []string, err error) {
	b := newBatchReader(strings.NewReader(text))
	for {
		words, err := b.next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%d: %q", b.line, words))
	}
}

func TestSplit(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
		err  error
	}{
		"nothing":                 {"", nil, nil},
		"blank lines":             {"\n \t\n\r\n", nil, nil},
		"one line":                {"route add default\n", []string{`1: ["route" "add" "default"]`}, nil},
		"no newline at the end":   {"a b", []string{`1: ["a" "b"]`}, nil},
		"a comment":               {"# all of it\na b # the rest\n", []string{`2: ["a" "b"]`}, nil},
		"a comment in a word":     {"a b#c d\n", []string{`1: ["a" "b"]`}, nil},
		"quotes":                  {`a "b c" 'd "e' ""`, []string{`1: ["a" "b c" "d \"e" ""]`}, nil},
		"a quote ends a word":     {`"a"b 'c''d'`, []string{`1: ["a" "b" "c" "d"]`}, nil},
		"a quote inside of one":   {`a"b c"`, []string{`1: ["a\"b" "c\""]`}, nil},
		"continued":               {"a \\\n b\\\nc\nd\n", []string{`3: ["a" "bc"]`, `4: ["d"]`}, nil},
		"a comment is not":        {"a # b \\\nc\n", []string{`1: ["a"]`, `2: ["c"]`}, nil},
		"continued by a comment":  {"a \\\n# b\nc\n", []string{`2: ["a"]`, `3: ["c"]`}, nil},
		"a backslash elsewhere":   {"a\\ b \\", []string{`1: ["a\\" "b" "\\"]`}, nil},
		"continuation is missing": {"a\nb \\\n", []string{`1: ["a"]`}, errContinuation},
		"a comment in quotes":     {`a "b # c"`, nil, errQuote},
		"an open quote":           {"a 'b\nc'\n", nil, errQuote},
		"many words":              {strings.Repeat("a ", maxLineWords+1), nil, errManyWords},
		"a long line":             {strings.Repeat("a", maxLineBytes+1), nil, errLongLine},
		"long by continuation":    {strings.Repeat(strings.Repeat("a", 1000)+"\\\n", 70) + "a", nil, errLongLine},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := split(tc.text)
			if !errors.Is(err, tc.err) || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v, want %q, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

// random makes texts of an alphabet.
func random(alphabet string, n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	letters := []rune(alphabet)
	var out []string
	for range n {
		var text strings.Builder
		for range r.IntN(14) {
			text.WriteRune(letters[r.IntN(len(letters))])
		}
		out = append(out, text.String())
	}
	return out
}

// TestWordsLikeIP lets ip(8) read random lines. It tells the first word after
// "route add", and the second one after "addr add dev", by refusing them.
func TestWordsLikeIP(t *testing.T) {
	for _, text := range random("qz\"'#\\ \t\n\n  ", 300) {
		for skip, command := range map[int]string{2: "route add ", 4: "addr add dev "} {
			text := command + text + " x\n"
			out, _ := iproute(t, text, "ip", "-batch", "-")
			_, theirs, refused := strings.Cut(out, `rather than "`)
			if !refused {
				continue // the line has no such word, or an open quote
			}
			theirs, _, _ = strings.Cut(theirs, "\".\n")
			words, err := newBatchReader(strings.NewReader(text)).next()
			if err != nil || len(words) <= skip || words[skip] != theirs {
				t.Errorf("%q: we see %q, %v, ip(8)\n%s", text, words, err, out)
			}
		}
	}
}

// TestLinesLikeIP lets ip(8) name the line that the kernel refused.
func TestLinesLikeIP(t *testing.T) {
	for _, text := range random("# \\\n\n", 200) {
		text := strings.ReplaceAll(text, "#", "\\\n") + "route add 10.0.0.0/8 " + text + " dev lo\n"
		out, _ := iproute(t, text, "ip", "-batch", "-")
		_, theirs, refused := strings.Cut(out, "Command failed -:")
		if !refused {
			continue
		}
		b := newBatchReader(strings.NewReader(text))
		_, err := b.next()
		if ours := strconv.Itoa(b.line); err != nil || ours != strings.TrimSpace(theirs) {
			t.Errorf("%q: we see line %s, %v, ip(8)\n%s", text, ours, err, out)
		}
	}
}

// FuzzBatch: no batch makes the reader fail but by one of its errors; the words of
// a line, quoted, are the same words again. The corpus is under testdata/fuzz.
func FuzzBatch(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		b := newBatchReader(strings.NewReader(text))
		for last := 0; ; last = b.line {
			words, err := b.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				if !isUsage(err) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if b.line <= last || len(words) == 0 || len(words) > maxLineWords {
				t.Fatalf("line %d after %d with %d words", b.line, last, len(words))
			}
			sameAgain(t, words)
			_, _ = (&batch{c: &cli{}, nouns: map[string]*noun{}}).understand(words)
		}
	})
}

// sameAgain quotes words that can be quoted and reads them.
func sameAgain(t *testing.T, words []string) {
	t.Helper()
	var text strings.Builder
	for _, w := range words {
		quote := `"`
		if strings.Contains(w, quote) {
			quote = "'"
		}
		if strings.Contains(w, quote) {
			return // has both
		}
		text.WriteString(quote + w + quote + " ")
	}
	again, err := splitWords(text.String())
	if err != nil || !slices.Equal(again, words) {
		t.Fatalf("%q became %q, %v", words, again, err)
	}
}

func isUsage(err error) bool {
	_, ok := errors.AsType[*usageError](err)
	return ok
}
