package main

import (
	"crypto/tls"
	"log/slog"

	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/postgres"
	"github.com/tidegate/tidegate/gateway/ssh"
)

// roomConfig is what rooms are made of. A room without an address to listen on
// stays closed.
type roomConfig struct {
	Postgres string // listen address
	TLS      *tls.Config
	SSH      sshDoor
	Log      *slog.Logger
}

// sshDoor is the SSH room's door.
type sshDoor struct {
	Listen string
	Keys   *sshKeys
	Device ssh.DeviceLogin
}

// openRoom is a room and where it listens.
type openRoom struct {
	gateway.Room
	Listen string
}

// newRooms is the one list of protocols. Adding one is a folder and a line.
func newRooms(cfg roomConfig) ([]openRoom, error) {
	var rooms []openRoom
	if cfg.Postgres != "" {
		room, err := postgres.New(postgres.Config{TLS: cfg.TLS, ClientCA: cfg.SSH.clientCA(), Log: cfg.Log.With("part", "postgres")})
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, openRoom{room, cfg.Postgres})
	}
	if cfg.SSH.Listen != "" {
		room, err := ssh.New(ssh.Config{
			HostKeys: cfg.SSH.Keys.hostKeys, HostCAs: cfg.SSH.Keys.hostCAs,
			Authority: cfg.SSH.Keys.certificates().Authority, Device: cfg.SSH.Device, Log: cfg.Log.With("part", "ssh"),
		})
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, openRoom{room, cfg.SSH.Listen})
	}
	return rooms, nil
}
