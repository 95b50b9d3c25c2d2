DROP TABLE devices;
DROP TABLE rate_limits;
