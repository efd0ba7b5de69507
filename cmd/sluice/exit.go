// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sluice/api"
)

// Exit codes. They are part of the interface: scripts decide on them, and
// docs/cli.md lists them.
const (
	exitOK         = 0
	exitRefused    = 1 // the daemon refused, or the operation went wrong
	exitUsage      = 2 // the command line is wrong; nothing was asked of the daemon
	exitNoDaemon   = 3 // there is no daemon behind the socket
	exitPermission = 4 // the socket may not be opened by this user
)

// operationError marks an error that arose while a command did its work, as
// against one of the command line that cobra found.
type operationError struct{ err error }

func (e *operationError) Error() string { return e.err.Error() }
func (e *operationError) Unwrap() error { return e.err }

// usageError marks an error of the command line that a command found itself.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitCode returns what the process ends with.
func exitCode(err error) int {
	usage, ofUsage := errors.AsType[*usageError](err)
	operation, ofOperation := errors.AsType[*operationError](err)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, api.ErrDaemonDown):
		return exitNoDaemon
	case errors.Is(err, api.ErrPermission):
		return exitPermission
	case ofUsage && usage != nil:
		return exitUsage
	case ofOperation && operation != nil:
		return exitRefused
	}
	return exitUsage
}

// explain turns an error into one line that says what to do about it; what is wrong with
// a ruleset has the line that it is in, and carets below.
func explain(err error) string {
	switch {
	case errors.Is(err, api.ErrDaemonDown):
		return err.Error() + `; start it with "systemctl start sluiced", or as root with "sluiced run"`
	case errors.Is(err, api.ErrPermission):
		return err.Error() + "; sluice needs root, like ip(8)"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer from sluiced within %s", patience)
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	if e, ok := errors.AsType[*api.Error](err); ok && strings.Contains(e.Message, "\n") {
		return err.Error()
	}
	// Cobra adds its suggestions on lines of their own.
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = strings.Replace(text, " Did you mean this? ", "; did you mean: ", 1)
	if exitCode(err) == exitUsage && !strings.Contains(text, `try "sluice `) {
		text += ` (see "sluice --help")`
	}
	return text
}
