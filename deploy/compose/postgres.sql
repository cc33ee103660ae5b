-- A database for each service that has its data here, and one for the payment provider, which is somebody else. Run once, on an empty volume.
CREATE DATABASE starcoffee_order;
CREATE DATABASE starcoffee_payment;
CREATE DATABASE starcoffee_provider;
CREATE DATABASE starcoffee_mypage;
