// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Session is nft(8) in its interactive mode, in the namespace of the thread: a command
// takes a millisecond, of which a process of its own would take ten.
type Session struct {
	t    testing.TB
	file string
	in   io.Writer
	out  *bufio.Reader
}

// NewSession begins one. It ends with the test.
func NewSession(t testing.TB) *Session {
	t.Helper()
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	t.Cleanup(func() {
		_ = in.Close() // it ends by that
		_ = cmd.Wait()
		_ = r.Close()
	})
	return &Session{t: t, file: filepath.Join(t.TempDir(), "commands.nft"), in: in, out: bufio.NewReader(r)}
}

// done is a command whose answer is one line, and known: all before it is said then.
const done = "describe meta mark"

// Do gives commands, of one transaction, and returns what is said.
func (s *Session) Do(commands string) string {
	s.t.Helper()
	out := s.Try(commands)
	if strings.Contains(out, "Error: ") {
		s.t.Fatalf("%s\n%s", out, commands)
	}
	return out
}

// Try is Do for what may be refused.
func (s *Session) Try(commands string) string {
	s.t.Helper()
	if strings.Contains(commands, "\n") {
		if err := os.WriteFile(s.file, []byte(commands), 0o600); err != nil {
			s.t.Fatal(err)
		}
		commands = `include "` + s.file + `"`
	}
	if _, err := io.WriteString(s.in, commands+"\n"+done+"\n"); err != nil {
		s.t.Fatal(err)
	}
	var all strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("nft is gone: %v\n%s%s", err, all.String(), line)
		}
		if strings.HasPrefix(line, "meta expression, datatype mark") {
			return all.String()
		}
		all.WriteString(line)
	}
}
