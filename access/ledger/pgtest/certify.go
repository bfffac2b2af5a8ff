package pgtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// certify finds the CA and the certificate of a kept cluster, or makes them.
func (s *Server) certify() error {
	ca, errCA := os.ReadFile(s.path("ca.pem"))
	_, err := tls.LoadX509KeyPair(s.path("server.pem"), s.path("server.key"))
	block, _ := pem.Decode(ca)
	if errors.Join(errCA, err) != nil || block == nil {
		return s.makeCertificates()
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || time.Until(cert.NotAfter) < 24*time.Hour {
		return s.makeCertificates()
	}
	s.CAPEM = ca
	return nil
}

// makeCertificates makes a CA and a certificate for loopback; the CA's key is forgotten.
func (s *Server) makeCertificates() error {
	caKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	ca := template(1, "pgtest CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := template(2, "localhost")
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	caDER, err1 := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	leafDER, err2 := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	keyDER, err3 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	s.CAPEM = encode("CERTIFICATE", caDER)
	return errors.Join(s.write("ca.pem", s.CAPEM), s.write("server.pem", encode("CERTIFICATE", leafDER)),
		s.write("server.key", encode("PRIVATE KEY", keyDER)))
}

func template(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
