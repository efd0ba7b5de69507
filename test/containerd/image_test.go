// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// image is the name of the one image: busybox, which is also what a pod's pause is.
const image = "sluice.test/busybox:1"

// writeImage makes an image of the static busybox of this machine, in the layout of OCI.
func writeImage(path string) error {
	layer, err := busyboxLayer()
	if err != nil {
		return err
	}
	config := map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sleep", "100000"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	}
	w := &layout{blobs: make(map[string][]byte)}
	manifest := map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": w.put("application/vnd.oci.image.config.v1+json", asJSON(config)),
		"layers": []any{w.put("application/vnd.oci.image.layer.v1.tar", layer)},
	}
	root := w.put("application/vnd.oci.image.manifest.v1+json", asJSON(manifest))
	root["annotations"] = map[string]string{"io.containerd.image.name": image, "org.opencontainers.image.ref.name": "1"}
	w.blobs["index.json"] = asJSON(map[string]any{"schemaVersion": 2, "manifests": []any{root}})
	w.blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return w.write(path)
}

// layout is the files of an image.
type layout struct{ blobs map[string][]byte }

func (l *layout) put(kind string, b []byte) map[string]any {
	l.blobs["blobs/sha256/"+strings.TrimPrefix(digest(b), "sha256:")] = b
	return map[string]any{"mediaType": kind, "digest": digest(b), "size": len(b)}
}

func (l *layout) write(path string) error {
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	for name, b := range l.blobs {
		if err := file(t, name, 0o644, b); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// busyboxLayer is a file system of busybox and a link for each of its programs.
func busyboxLayer() ([]byte, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	names, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	for _, dir := range []string{"bin/", "etc/", "proc/", "sys/", "dev/", "tmp/", "www/"} {
		if err := t.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	if err := file(t, "bin/busybox", 0o755, binary); err != nil {
		return nil, err
	}
	for name := range strings.FieldsSeq(string(names)) {
		if name == "busybox" {
			continue
		}
		if err := t.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), t.Close()
}

func file(t *tar.Writer, name string, mode int64, b []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err := io.Copy(t, bytes.NewReader(b))
	return err
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is made of maps and texts
	}
	return b
}
