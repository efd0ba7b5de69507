// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The part of linux/ethtool.h that switches offloads by name. It is written out
// here since the library for it passes the kernel a pointer to its stack as an
// integer: should the stack grow meanwhile, as it does on the young goroutines of
// Do, the kernel works on memory that is somebody else's.
const (
	ethSSFeatures   = 4  // ETH_SS_FEATURES: the names, in the order of their bits
	ethGStringLen   = 32 // ETH_GSTRING_LEN
	maxFeatureNames = 1024
)

// feature is one offload as ethtool(8) -k names it.
type feature struct {
	name string
	on   bool
}

// ifreq is struct ifreq with its ifr_data, see netdevice(7).
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// ethtool runs one SIOCETHTOOL request in the namespace of the socket fd. The
// answer is written over the request.
func ethtool(fd int, ifname string, request []byte) error {
	req := ifreq{data: unsafe.Pointer(&request[0])}
	copy(req.name[:unix.IFNAMSIZ-1], ifname)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(request)
	if errno != 0 {
		return errno
	}
	return nil
}

// setFeatures switches those offloads of an interface that its driver knows, in
// the calling thread's namespace.
func setFeatures(ifname string, want []feature) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", ifname, err)
	}
	defer unix.Close(fd)
	names, err := featureNames(fd, ifname)
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", ifname, err)
	}
	// struct ethtool_sfeatures: cmd, size, {valid, requested} for each 32 bits.
	blocks := (len(names) + 31) / 32
	request := binary.NativeEndian.AppendUint32(nil, unix.ETHTOOL_SFEATURES)
	request = binary.NativeEndian.AppendUint32(request, uint32(blocks))
	request = append(request, featureBits(names, want, blocks)...)
	if err := ethtool(fd, ifname, request); err != nil {
		return fmt.Errorf("offloads of %s: %w", ifname, err)
	}
	return nil
}

// featureBits is one {valid, requested} pair of words for each 32 names. A name
// that the kernel doesn't know asks for nothing.
func featureBits(names []string, want []feature, blocks int) []byte {
	words := make([]byte, blocks*8)
	for bit, name := range names {
		for _, f := range want {
			if f.name != name {
				continue
			}
			setBit(words[bit/32*8:], bit%32)
			if f.on {
				setBit(words[bit/32*8+4:], bit%32)
			}
		}
	}
	return words
}

func setBit(word []byte, bit int) {
	binary.NativeEndian.PutUint32(word, binary.NativeEndian.Uint32(word)|1<<bit)
}

// featureNames asks the kernel for the names of all offloads; the position of a
// name is the number of its bit. The two structs are ethtool_sset_info {cmd,
// reserved, u64 mask, sizes...} and ethtool_gstrings {cmd, set, len, names...}.
func featureNames(fd int, ifname string) ([]string, error) {
	h := binary.NativeEndian
	info := make([]byte, 24)
	h.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	h.PutUint64(info[8:], 1<<ethSSFeatures)
	if err := ethtool(fd, ifname, info); err != nil {
		return nil, err
	}
	n := min(int(h.Uint32(info[16:])), maxFeatureNames)
	set := make([]byte, 12+n*ethGStringLen)
	h.PutUint32(set, unix.ETHTOOL_GSTRINGS)
	h.PutUint32(set[4:], ethSSFeatures)
	h.PutUint32(set[8:], uint32(n))
	if err := ethtool(fd, ifname, set); err != nil {
		return nil, err
	}
	names := make([]string, n)
	for i := range names {
		name, _, _ := bytes.Cut(set[12+i*ethGStringLen:][:ethGStringLen], []byte{0})
		names[i] = string(name)
	}
	return names, nil
}
