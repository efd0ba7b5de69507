// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// conflistName is the file of the configuration. Runtimes take the first one of a folder.
const conflistName = "10-sluice.conflist"

// firstConflist is what is installed if nothing is there.
//
//go:embed 10-sluice.conflist
var firstConflist []byte

// usage is of the program when it is not called by a runtime.
const usage = `usage: sluice install   [--root DIR] [--bin-dir DIR] [--conf-dir DIR] [--conflist FILE] [--wait]
       sluice uninstall [--root DIR] [--bin-dir DIR] [--conf-dir DIR]

Install puts this program among the CNI plugins of a node, and then the network
configuration, each by one rename, so that no runtime sees half of one. With --wait it
takes both away when it is ended by SIGTERM or SIGINT, the configuration first. A
configuration that is there is left as it is unless --conflist gives another.

A runtime calls the program without words, with CNI_COMMAND in its environment.
`

// place is where a node's plugins and configurations are.
type place struct{ bin, conf string }

// setup is install and uninstall.
func setup(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("sluice "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() { fmt.Fprint(out, usage) }
	root := flags.String("root", "/", "")
	bin := flags.String("bin-dir", "/opt/cni/bin", "")
	conf := flags.String("conf-dir", "/etc/cni/net.d", "")
	conflist := flags.String("conflist", "", "")
	wait := flags.Bool("wait", false, "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not understood\n%s", flags.Arg(0), usage)
	}
	p := place{filepath.Join(*root, *bin), filepath.Join(*root, *conf)}
	if args[0] == "uninstall" {
		return p.uninstall()
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	if err := p.install(*conflist); err != nil || !*wait {
		return err
	}
	fmt.Fprintf(out, "installed in %s and %s\n", p.bin, p.conf)
	<-ended
	return p.uninstall()
}

// install is the plugin first: a configuration without it would fail every pod.
func (p place) install(conflist string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(p.bin, "sluice"), program, 0o755); err != nil {
		return err
	}
	text, to := firstConflist, filepath.Join(p.conf, conflistName)
	if conflist != "" {
		if text, err = os.ReadFile(conflist); err != nil {
			return err
		}
	} else if _, err := os.Stat(to); err == nil {
		return nil
	}
	return replace(to, text, 0o644)
}

// uninstall is the configuration first, for the same reason.
func (p place) uninstall() error {
	err := os.Remove(filepath.Join(p.conf, conflistName))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(filepath.Join(p.bin, "sluice"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// replace writes a file so that there is the old one, or the new one, at any time.
func replace(path string, text []byte, mode os.FileMode) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Runtimes read *.conf, *.conflist and *.json, and call what is named: a name with a
	// dot in front is neither.
	f, err := os.CreateTemp(dir, ".sluice-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
