package postgres

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"net"
	"strconv"
	"testing"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
	"github.com/tidegate/tidegate/gateway/postgres/backing"
	"github.com/tidegate/tidegate/gateway/record"
)

// sunk is a connection into which everything may be written.
type sunk struct{ net.Conn }

func (sunk) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkTurns is what the gateway itself does for one short query and its
// answer: without sockets, but with rules, a mask and a recording on the disk.
func BenchmarkTurns(b *testing.B) {
	plan := backing.Backing{Role: "bench", Database: "bench", SearchPath: []string{"masked", "public"},
		Masked: []backing.MaskedTable{{Schema: "public", Table: "wide", MaskSchema: "masked", Columns: []backing.MaskedColumn{{Name: "email"}}}}}
	encoded, err := plan.Encode()
	if err != nil {
		b.Fatal(err)
	}
	store, err := record.Open(record.Config{Dir: b.TempDir(), Key: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	gate := gatewaytest.New(b, gatewaytest.Options{
		Target:   access.Target{TargetRef: access.TargetRef{Kind: "postgres", Name: "orders-prod"}, Address: "127.0.0.1:1/bench"},
		Compiler: policyCompiler{}, Recorders: spool{store},
		Lease: func(_ access.Grant, l *access.Lease) error { l.Backing = encoded; return nil },
	})
	gate.Rules(benchRules...)
	room, err := New(Config{AllowPlainLoopback: true})
	if err != nil {
		b.Fatal(err)
	}
	rows := message('T', []byte("\x00\x01abalance\x00\x00\x00\x40\x01\x00\x03\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00"))
	rows = append(rows, message('D', []byte("\x00\x01\x00\x00\x00\x010"))...)
	rows = append(rows, message('C', []byte("SELECT 1\x00"))...)
	rows = append(rows, message('Z', []byte("I"))...)
	parse := append(message('P', []byte("P0_1\x00SELECT abalance FROM pgbench_accounts WHERE aid = $1;\x00\x00\x00")), message('S', nil)...)
	parsed := append(message('1', nil), message('Z', []byte("I"))...)
	for _, mode := range []struct {
		name   string
		first  [2][]byte
		ask    func([]byte, int) []byte
		answer []byte
	}{
		{"simple", [2][]byte{}, func(to []byte, i int) []byte {
			return appendMessage(to, 'Q', "SELECT abalance FROM pgbench_accounts WHERE aid = ", strconv.Itoa(100000+i%500000), ";\x00")
		}, rows},
		{"prepared", [2][]byte{parse, parsed}, func(to []byte, i int) []byte {
			to = appendMessage(to, 'B', "\x00P0_1\x00\x00\x00\x00\x01\x00\x00\x00\x06", strconv.Itoa(100000+i%500000), "\x00\x01\x00\x00")
			to = appendMessage(to, 'D', "P\x00")
			to = appendMessage(to, 'E', "\x00\x00\x00\x00\x00")
			return appendMessage(to, 'S')
		}, append(message('2', nil), rows...)},
	} {
		b.Run(mode.name, func(b *testing.B) {
			s := gate.Open("alice")
			defer func() { _ = s.Close("done") }()
			plan, err := room.plans.parse(encoded)
			if err != nil {
				b.Fatal(err)
			}
			up := &upstream{conn: sunk{}}
			up.out.w = up.conn
			br := newBridge(room, sunk{}, s, up, plan)
			br.ctx, br.end = context.WithCancelCause(context.Background())
			br.hurried = br.ctx
			turns := func(asked, answer []byte) {
				for len(asked) > 0 {
					f, size, ok, err := takeFrame(asked)
					if err != nil || !ok {
						b.Fatal(ok, err)
					}
					if err := br.handle(f); err != nil {
						b.Fatal(err)
					}
					asked = asked[size:]
				}
				if err := br.flush(); err != nil {
					b.Fatal(err)
				}
				if n, err := br.pass(answer); err != nil || n != len(answer) {
					b.Fatal(n, err)
				}
			}
			turns(mode.first[0], mode.first[1])
			b.ReportAllocs()
			var asked []byte
			for i := 0; b.Loop(); i++ {
				asked = mode.ask(asked[:0], i)
				turns(asked, mode.answer)
			}
		})
	}
}

func appendMessage(to []byte, kind byte, pieces ...string) []byte {
	at := len(to)
	to = append(to, kind, 0, 0, 0, 0)
	for _, p := range pieces {
		to = append(to, p...)
	}
	binary.BigEndian.PutUint32(to[at+1:], uint32(len(to)-at-1))
	return to
}
