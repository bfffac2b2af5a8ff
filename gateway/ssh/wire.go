package ssh

import (
	gossh "golang.org/x/crypto/ssh"
)

// The payloads of RFC 4254, by its sections.

type ptyPayload struct { // 6.2
	Term                         string
	Columns, Rows, Width, Height uint32
	Modes                        string
}

type windowPayload struct{ Columns, Rows, Width, Height uint32 } // 6.7

type envPayload struct{ Name, Value string } // 6.4

type x11Payload struct { // 6.3.1
	Single           bool
	Protocol, Cookie string
	Screen           uint32
}

type commandPayload struct{ Command string } // 6.5: exec, and subsystem

type statusPayload struct{ Status uint32 } // 6.10

type signalPayload struct { // 6.10: how a process was ended
	Signal  string
	Core    bool
	Message string
	Lang    string
}

type directPayload struct { // 7.2: direct-tcpip and forwarded-tcpip
	Host       string
	Port       uint32
	Origin     string
	OriginPort uint32
}

type listenPayload struct { // 7.1: tcpip-forward and its cancelling
	Host string
	Port uint32
}

type portPayload struct{ Port uint32 }

func exitStatus(code uint32) []byte { return gossh.Marshal(statusPayload{code}) }
