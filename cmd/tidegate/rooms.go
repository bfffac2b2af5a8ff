package main

import (
	"crypto/tls"
	"log/slog"

	"github.com/tidegate/tidegate/gateway"
	"github.com/tidegate/tidegate/gateway/postgres"
)

// roomConfig is what rooms are made of.
type roomConfig struct {
	TLS *tls.Config
	Log *slog.Logger
}

// newRooms is the one list of protocols. Adding one is a folder and a line.
func newRooms(cfg roomConfig) ([]gateway.Room, error) {
	pg, err := postgres.New(postgres.Config{TLS: cfg.TLS, Log: cfg.Log.With("part", "postgres")})
	if err != nil {
		return nil, err
	}
	return []gateway.Room{pg}, nil
}
