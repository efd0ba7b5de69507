// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"sluice/api"
)

// The codes of our own, above those of the specification.
const (
	errExhausted  = 100 // no address or port number is left
	errInUse      = 101 // somebody has the address, MAC or port of the host
	errExists     = 102 // there is such an interface, or such an attachment
	errDiffers    = 103 // CHECK: something is not as it was made
	errPermission = 104 // the daemon's socket may not be opened
)

// Codes of STATUS, of the specification.
const (
	errNotAvailable = 50 // an ADD would fail now
	errLimited      = 51 // and what is attached may have no connection either
)

// codeOf is the code for what the daemon said.
func codeOf(err error) uint {
	switch {
	case errors.Is(err, api.ErrDaemonDown), errors.Is(err, context.DeadlineExceeded):
		return types.ErrTryAgainLater
	case errors.Is(err, api.ErrPermission):
		return errPermission
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return codeOfRefusal(e)
	}
	return types.ErrIOFailure
}

// codeOfRefusal is the code for a request that the daemon refused.
func codeOfRefusal(e *api.Error) uint {
	switch e.Code {
	case api.CodeInvalid, api.CodeOutOfRange:
		if e.Field == "netns" || e.Field == "ifname" || e.Field == "container" {
			return types.ErrInvalidEnvironmentVariables
		}
		return types.ErrInvalidNetworkConfig
	case api.CodeNotFound:
		return codeOfMissing(e.Field)
	case api.CodeExists:
		return errExists
	case api.CodeInUse:
		return errInUse
	case api.CodeExhausted:
		return errExhausted
	case api.CodeUnavailable:
		return types.ErrTryAgainLater
	case api.CodeInternal:
	}
	return types.ErrInternal
}

// codeOfMissing is the code for something that does not exist.
func codeOfMissing(field string) uint {
	switch field {
	case "netns":
		return types.ErrInvalidNetNS
	case "container":
		return types.ErrUnknownContainer
	}
	return types.ErrInvalidNetworkConfig
}

// daemonError is what the daemon said, as CNI has it.
func daemonError(err error) error {
	field := ""
	if e, ok := errors.AsType[*api.Error](err); ok {
		field = e.Field
	}
	return refuse(codeOf(err), field, err.Error())
}
