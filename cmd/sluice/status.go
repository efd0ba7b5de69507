// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
)

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show how the daemon and its dataplane are",
		Long:  "Exits with 1 while there is no dataplane, since nothing is forwarded then.",
		Args:  noArgs,
		RunE: action(func(ctx context.Context, _ []string) error {
			s, err := c.client().Status(ctx)
			if err != nil {
				return err
			}
			if err := c.print(s, func(w io.Writer) { printStatus(w, s, c.now()) }); err != nil {
				return err
			}
			if s.Dataplane.State != "running" {
				return fmt.Errorf("the dataplane is not running (%s): nothing is forwarded", s.Dataplane.State)
			}
			return nil
		}),
	}
}

func printStatus(w io.Writer, s *api.Status, now time.Time) {
	fmt.Fprintf(w, "sluiced %s pid %d up %s\n", s.Version, s.PID, now.Sub(s.Started).Truncate(time.Second))
	fmt.Fprintf(w, "    networks %d attachments %d", s.Networks, s.Attachments)
	if s.Failed > 0 {
		fmt.Fprintf(w, " failed %d", s.Failed)
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "    run %s state %s build %s\n", s.RunDir, s.StateDir, orDash(s.Build))
	if s.ConfigError != "" {
		fmt.Fprintf(w, "    config not applied: %q\n", s.ConfigError)
	}
	d := &s.Dataplane
	fmt.Fprintf(w, "dataplane %s pid %d workers %d snapshot %d", d.State, d.PID, d.Workers, d.Generation)
	if d.Adopted {
		fmt.Fprint(w, " adopted")
	}
	fmt.Fprintf(w, "\n    restarts %d", d.Restarts)
	if d.Restarts > 0 {
		fmt.Fprintf(w, " last gap %s", time.Duration(d.LastGapMicros)*time.Microsecond)
	}
	fmt.Fprintf(w, " build %s", orDash(d.Build))
	if d.Spare > 0 {
		fmt.Fprintf(w, " spare pid %d", d.Spare)
	}
	fmt.Fprintln(w)
}

func (c *cli) shutdownCommand() *cobra.Command {
	var r api.ShutdownRequest
	cmd := &cobra.Command{
		Use:   "shutdown",
		Short: "end the daemon",
		Long: "The dataplane goes on forwarding, and the next daemon adopts it.\n" +
			"With --dataplane it ends too: nothing is forwarded until the next start.\n" +
			"Containers keep their interfaces and addresses either way.",
		Args: noArgs,
		RunE: action(func(ctx context.Context, _ []string) error { return c.client().Shutdown(ctx, &r) }),
	}
	cmd.Flags().BoolVar(&r.Dataplane, "dataplane", false, "end the dataplane too")
	return cmd
}
