package ssh

import (
	"context"
	"errors"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// DeviceLogin starts a login that is finished in a browser elsewhere. The
// prompt tells the person where; wait answers with the token, and ends with
// its context.
type DeviceLogin func(ctx context.Context) (prompt string, wait func(context.Context) (access.Secret, error), err error)

// Bounds of logins in a browser: nobody knows yet who they are, and each waits
// long and asks the identity provider. One that was not finished keeps its
// place for a moment, so that a source can't have new ones made all the time.
const (
	maxDevices       = 256
	maxSourceDevices = 16
	deviceRest       = 30 * time.Second
)

var errDevices = &gossh.BannerError{
	Err:     errors.New("too many log in by a browser at the moment"),
	Message: "tidegate: Too many log in by a browser from your address at the moment. Try again in some minutes, or run tidegate login.\r\n",
}

// device shows where to log in, and waits until that is done. A connection has
// one try, so that it ends in time.
func (a *authenticator) device(c gossh.ConnMetadata, ask gossh.KeyboardInteractiveChallenge) (*gossh.Permissions, error) {
	if a.triedDevice {
		return nil, errors.New("the login in a browser was not finished; connect again for another one")
	}
	a.triedDevice = true
	devices, source := a.room.devices, gateway.SourceOf(c.RemoteAddr())
	if !devices.take(source) {
		return nil, errDevices
	}
	p, err := a.waitDevice(c, ask)
	if err != nil {
		time.AfterFunc(deviceRest, func() { devices.give(source, 1) })
		return nil, err
	}
	devices.give(source, 1)
	return p, nil
}

func (a *authenticator) waitDevice(c gossh.ConnMetadata, ask gossh.KeyboardInteractiveChallenge) (*gossh.Permissions, error) {
	prompt, wait, err := a.room.cfg.Device(a.ctx)
	if err != nil {
		a.room.log.Warn("device login not started", "error", err)
		return nil, errors.New("the login in a browser could not be started")
	}
	a.late.Reset(a.room.cfg.DeviceTime)
	a.door.Linger(a.room.cfg.DeviceTime)
	defer a.late.Reset(startupTime)
	if _, err := ask("", prompt, []string{"Press Enter when you have logged in there. "}, []bool{true}); err != nil {
		return nil, err
	}
	token, err := wait(a.ctx)
	if err != nil {
		return nil, errors.New("the login in a browser was not finished")
	}
	return a.permit(c, shown{token: token})
}
